"""Measures reuseport-launch beside its peers, in one run: see docs/BENCHMARKS.md."""
import argparse
import datetime
import json
import os
import platform
import signal
import sys
import tempfile
import types

import install
import measure
import report
from cgroup import read
from paths import BINARY

PARTS = ["rates", "spread", "faults", "classic"]
INSIDE = "REUSEPORT_LAUNCH_PEERS_NAMESPACE"


def options():
    parser = argparse.ArgumentParser(prog="tests/peers/run", description=__doc__)
    add = parser.add_argument
    add("--quick", action="store_true", help="one short round: to see that it works")
    add("--only", metavar="SYSTEM,...", help="of " + ", ".join(measure.SYSTEMS))
    add("--parts", metavar="PART,...", default=",".join(PARTS), help="[default: all: %(default)s]")
    add("--rounds", type=positive, default=5, metavar="N", help="[default: %(default)s]")
    add("--json", metavar="FILE", help="write all figures")
    add("--markdown", metavar="FILE", help="measure nothing; the tables of a JSON file as Markdown")
    add("--binary", metavar="FILE", default=BINARY, help="[default: target/release/reuseport-launch]")
    return parser, parser.parse_args()


def positive(text):
    if not text.isdecimal() or not 1 <= int(text) <= 1000:
        raise argparse.ArgumentTypeError("allowed: a whole number from 1 to 1000")
    return int(text)


def chosen(parser, text, known, option):
    names = text.split(",") if text else list(known)
    if wrong := [name for name in names if name not in known]:
        allowed = ", ".join(known)
        parser.error(f"{option}: there is no {', '.join(wrong)}; allowed: {allowed}")
    return [name for name in known if name in names]


def programs(names, parts):
    """What the measurement needs."""
    wanted = ["ip", "unshare"]
    for name in names:
        wanted += measure.SYSTEMS[name].programs
    if "classic" in parts:
        wanted += ["node", "ab", "siege"]
    return list(dict.fromkeys(wanted))


def main():
    parser, args = options()
    if args.markdown:
        with open(args.markdown) as file:
            print(report.markdown(json.load(file)))
        return 0
    names = chosen(parser, args.only, measure.SYSTEMS, "--only")
    parts = chosen(parser, args.parts, PARTS, "--parts")
    needed = programs(names, parts)
    if os.geteuid() != 0:
        parser.error("it makes a network namespace and cgroups: run it as root")
    if not os.access(args.binary, os.X_OK):
        parser.error(f"there is no {args.binary}: cargo build --release -p reuseport-launch")
    if args.json and not os.environ.get(INSIDE):
        # Now, not after an hour.
        open(args.json, "a").close()
    if not os.environ.get(INSIDE):
        if lacking := install.install(needed):
            parser.error(f"not installed: {', '.join(lacking)}; leave systems out with --only")
        inside = ["unshare", "--net", "--", sys.executable, "-B", *sys.argv]
        os.execve(install.find("unshare"), inside, {**os.environ, INSIDE: "1"})
    os.spawnv(os.P_WAIT, install.find("ip"), ["ip", "link", "set", "lo", "up"])
    return run(args, names, parts, needed)


def run(args, names, parts, needed):
    os.environ.pop(INSIDE)
    for name in ["WEB_CONCURRENCY", "NODE_OPTIONS"]:
        os.environ.pop(name, None)
    found = {"version": 1, "started": now(), "command": command(), "host": host()}
    found["programs"] = install.versions(needed)
    with tempfile.TemporaryDirectory(prefix="peers-") as scratch:
        place = types.SimpleNamespace(
            binary=os.path.abspath(args.binary),
            scratch=scratch,
            rounds=1 if args.quick else args.rounds,
            seconds=0.5 if args.quick else 3.0,
            rate=500 if args.quick else measure.RATE,
            connections=400 if args.quick else 2000,
            events=2 if args.quick else None,
        )
        found["conditions"] = {
            key: value for key, value in vars(place).items() if key not in ["binary", "scratch"]
        }
        for part in parts:
            found[part] = getattr(measure, part)(place, names)
            # What is measured so far is kept if a later part fails.
            write(args.json, found)
    found["ended"] = now()
    found["load_average"] = os.getloadavg()
    write(args.json, found)
    print(report.terminal(found))
    return 0


def write(file, found):
    if file:
        with open(file, "w") as out:
            json.dump(found, out, indent=1)
            out.write("\n")


def command():
    return ["tests/peers/run", *sys.argv[1:]]


def now():
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def host():
    models = [line for line in read("/proc/cpuinfo").splitlines() if line.startswith("model name")]
    cpu = models[0].partition(":")[2].strip() if models else platform.machine()
    return {"kernel": platform.release(), "cpu": cpu, "cpus": len(os.sched_getaffinity(0))}


if __name__ == "__main__":
    # What it has started is stopped then, too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
    except (OSError, RuntimeError) as error:
        hint = "look at what is said above; --only leaves systems out"
        sys.exit(f"error: cannot measure: {error}\n  → {hint}")

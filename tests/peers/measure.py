"""What is measured: each function is one part, and returns plain data for the report."""
import os
import re
import subprocess
import sys
import time

import load
import others
import systems
from cgroup import read
from install import find
from systems import PORT

CONNECTIONS = 50
RATE = 2000
LOADS = {"light": (800, {}), "busy": (200, {"SPIN_MS": 4})}
RELOADS, KILLS = 11, 19
# What ab prints.
AB = {"answered": "Complete requests", "failed": "Failed requests", "rate": "Requests per second"}

# Names on the command line, in the order of the tables.
SYSTEMS = {
    "ours": systems.Launched,
    "ours-least-conn": systems.LeastConn,
    "hash": systems.KernelHash,
    "cluster-rr": systems.ClusterRr,
    "cluster-none": systems.ClusterNone,
    "pm2": systems.Pm2,
    "haproxy": others.Haproxy,
    "nginx": others.Nginx,
    "nginx-reuseport": others.NginxReuseport,
    "nginx-ours": others.NginxLaunched,
    "gunicorn": others.Gunicorn,
    "gunicorn-reuseport": others.GunicornReuseport,
    "gunicorn-ours": others.GunicornLaunched,
}
SPREAD = ["ours", "hash", "cluster-rr", "cluster-none"]
BUILT_IN = ["shared-listener", "shared-listener-exclusive"]
FAULTS = ["ours", "hash", "cluster-rr", "cluster-none", "pm2", "haproxy", "nginx", "gunicorn"]
# Servers that end in good order when they are told to.
GRACEFUL = ["ours", "hash", "pm2"]


def say(text):
    """Progress, for who waits."""
    print(text, file=sys.stderr, flush=True)


def rates(place, names):
    """Parts 1 and 2: requests per second, and what 10 000 requests cost. Round by round."""
    rounds = []
    for number in range(place.rounds):
        # Each round begins with another system, so that no one always follows the same one.
        shift = number % max(len(names), 1)
        found = {}
        for name in names[shift:] + names[:shift]:
            say(f"rates: round {number + 1} of {place.rounds}: {name}")
            with SYSTEMS[name](place) as system:
                found[name] = {**peak(place, number), **cost(place, system, number)}
        rounds.append(found)
    return rounds


def peak(place, seed):
    pace, warmup = load.closed(CONNECTIONS), place.seconds / 2
    result = load.Load(place.binary, PORT, pace, place.seconds, warmup, seed).result()
    rate = result["answered"] / result["seconds"]
    busy = result["busiest_thread"]
    return {"rate": rate, "failed": load.failed(result), "generator_busy": busy}


def cost(place, system, seed):
    """Of the server's processes, all of them."""
    before = (system.cgroup.cpu(), system.cgroup.switches())
    pace = load.steady(place.rate)
    result = load.Load(place.binary, PORT, pace, place.seconds, 0.0, seed).result()
    cpu = system.cgroup.cpu() - before[0]
    switches = system.cgroup.switches() - before[1]
    answered = max(result["answered"], 1)
    return {
        "cpu_10k": cpu / answered * 10_000,
        "switches": switches / answered,
        "open_sent": result["sent"],
        "open_failed": load.failed(result),
    }


def spread(place, names):
    """Part 3: connections of each of 8 workers, one client after the other."""
    counts = {}
    for name in [name for name in SPREAD if name in names]:
        say(f"spread: {name}")
        with SYSTEMS[name](place, workers=8):
            counts[name] = sorted(load.tally(PORT, place.connections).values())
    for mode in BUILT_IN:
        say(f"spread: {mode}")
        counts[mode] = sorted(built_in(place, mode).values())
    return {name: padded(found) for name, found in counts.items()}


def padded(found):
    """With a 0 for each worker that got nothing."""
    return [0] * (8 - len(found)) + found


def built_in(place, mode):
    """The workers of `reuseport-launch bench` in one of its modes."""
    place_of = ["--port", str(PORT), "--runtime-dir", place.scratch]
    command = [place.binary, "__bench-serve", mode, "--workers", "8", *place_of]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as server:
        if not server.stdout.readline():
            raise RuntimeError(f"cannot run the benchmark's {mode}; what it said is above")
        found = load.tally(PORT, place.connections)
        # It ends with its standard input.
        server.stdin.close()
    return found


def faults(place, names):
    """Part 4: requests that failed while workers were reloaded or killed."""
    cells = []
    for name in [name for name in FAULTS if name in names]:
        for graceful, weight in variants(place, name):
            rate, env = LOADS[weight]
            full = {**env, **({"GRACEFUL": 1} if graceful else {})}
            say(f"faults: {name}{' graceful' * graceful}, {weight}")
            cell = {"system": name, "graceful": graceful, "load": weight}
            with SYSTEMS[name](place, env=full) as system:
                began = time.monotonic()
                system.reload()
                took = time.monotonic() - began
                reloads = place.events or RELOADS
                cell["reload"] = disturb(place, rate, system.reload, reloads, took + 0.3)
                # A kill can leave a system in disorder, so that comes last.
                kills = place.events or KILLS
                cell["kill"] = disturb(place, rate, system.kill_one, kills, 1.0)
            cells.append(cell)
            for kind in ["reload", "kill"]:
                say(f"  {kind}: {cell[kind]}")
    return cells


def variants(place, name):
    """Whether the server ends in good order, and under what load."""
    if place.events:
        return [(False, "light")]
    # nginx runs no handler of ours.
    weights = ["light"] if name == "nginx" else list(LOADS)
    graceful = [False, True] if name in GRACEFUL else [False]
    return [(one, weight) for one in graceful for weight in weights]


def disturb(place, rate, event, count, interval):
    """Sends a load while `event` happens so often, one each `interval` at most. What happens after the
    load has ended does not count."""
    sent = load.Load(place.binary, PORT, load.steady(rate), count * interval * 1.3 + 2)
    done, why = 0, None
    try:
        time.sleep(0.5)
        while done < count and sent.runs():
            due = time.monotonic() + interval
            event()
            done += sent.runs()
            time.sleep(max(0, due - time.monotonic()))
    except (OSError, subprocess.SubprocessError) as error:
        why = str(error)
    except KeyboardInterrupt:
        sent.kill()
        raise
    result = sent.result()
    kinds = {kind: number for kind, number in result["errors"].items() if number}
    return {"events": done, "sent": result["sent"], "errors": kinds, "gave_up": why}


def classic(place, names):
    """Part 5: the experiments of the tutorials about Node's cluster module."""
    cases = [name for name in ["ours", "cluster-rr"] if name in names]
    found = {"spin": {}, "throw": {}, "restart": {}, "siege": {}}
    turns = {"SPIN_TURNS": 10_000_000}
    say("classic: a loop of 10 000 000 turns")
    with systems.Single(place, workers=1, env=turns):
        found["spin"]["single"] = ab()
    for name in cases:
        kind = SYSTEMS[name]
        say(f"classic: turns, throws, restarts: {name}")
        with kind(place, env=turns):
            found["spin"][name] = ab()
        found["throw"][name] = crowd(place, kind(place, env={**turns, "THROW_AFTER": 3}))
        found["restart"][name] = crowd(place, kind(place, env=turns), restart=True)
    for name in [*cases, *(["cluster-none"] if "cluster-none" in names else [])]:
        say(f"classic: siege: {name}")
        found["siege"][name] = siege(place, name)
    return found


def ab():
    """`ab -c200 -t10`; -l because pids differ in length, -r because one error else ends it."""
    command = [find("ab"), "-c200", "-t10", "-l", "-r", f"http://127.0.0.1:{PORT}/"]
    text = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    found = {}
    for key, name in AB.items():
        if number := re.search(rf"{name}:\s+([\d.]+)", text):
            found[key] = float(number[1])
    if len(found) < 3:
        raise RuntimeError(f"ab gave up: {text[-300:]}")
    return found


def crowd(place, system, restart=False):
    """The same load by the generator of the benchmark: ab counts an error twice, and gives up after
    ten. A system whose workers throw may not even start."""
    try:
        with system:
            sent = load.Load(place.binary, PORT, load.closed(200), 10, timeout=20.0)
            if restart:
                # The load is to be there, and to go on afterwards.
                time.sleep(3)
                system.reload()
            result = sent.result()
    except RuntimeError as error:
        say(str(error))
        return {"answered": 0, "failed": None, "rate": None, "said": str(error)[-300:]}
    rate = result["answered"] / result["seconds"]
    return {"answered": result["answered"], "failed": load.failed(result), "rate": rate}


def siege(place, name):
    """`siege -c 100 -r 2` over four workers: requests of each."""
    file = os.path.join(place.scratch, f"count-{name}")
    with SYSTEMS[name](place, workers=4, env={"COUNT_FILE": file}):
        # Those that were asked while it started don't count.
        os.truncate(file, 0)
        env = {**os.environ, "HOME": place.scratch}
        command = [find("siege"), "-c", "100", "-r", "2", f"http://127.0.0.1:{PORT}/"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        subprocess.run(command, env=env, check=True, **quiet)
        lines = read(file).split()
    found = sorted((lines.count(pid) for pid in set(lines)), reverse=True)
    return found + [0] * (4 - len(found))

"""The tables and the goals, for a terminal or as Markdown, out of what was measured."""
import statistics

import goals

LABELS = {
    "ours": "reuseport-launch, round-robin",
    "ours-least-conn": "reuseport-launch, least-conn",
    "hash": "kernel's hash (--steer kernel)",
    "cluster-rr": "Node cluster, SCHED_RR",
    "cluster-none": "Node cluster, SCHED_NONE",
    "pm2": "PM2 cluster",
    "haproxy": "HAProxy before two",
    "nginx": "nginx",
    "nginx-reuseport": "nginx, listen … reuseport",
    "nginx-ours": "nginx, under reuseport-launch",
    "gunicorn": "gunicorn",
    "gunicorn-reuseport": "gunicorn --reuse-port",
    "gunicorn-ours": "gunicorn, under reuseport-launch",
    "shared-listener": "one shared socket, epoll",
    "shared-listener-exclusive": "the same, EPOLLEXCLUSIVE",
    "single": "one process",
}


def tables(found):
    """Title, columns and rows of each part that was measured."""
    parts = [("rates", rates), ("spread", spread), ("faults", faults), ("classic", classic)]
    made = [table for part, make in parts if part in found for table in make(found)]
    judged = goals.judge(found)
    if judged:
        words = {True: "met", False: "NOT met"}
        rows = [[goal.what, goal.wanted, goal.found, words[goal.met]] for goal in judged]
        made.append(("Goals", ["goal", "wanted", "found", ""], rows))
    return made


def rates(found):
    rounds = found["rates"]
    rows = []
    for name in in_order(rounds[0]):
        own = [one[name] for one in rounds]
        middle = {key: statistics.median(one[key] for one in own) for key in own[0]}
        failed = sum(one["failed"] + one["open_failed"] for one in own)
        # Beside the same server under reuseport-launch.
        family = name.partition("-")[0]
        against = f"{family}-ours" if family in ["nginx", "gunicorn"] else "ours"
        ratios = goals.paired(rounds, against, name, "rate")
        rows.append([
            LABELS[name],
            f"{middle['rate']:.0f}",
            span(ratios),
            f"{middle['cpu_10k']:.2f}",
            f"{middle['switches']:.1f}",
            str(failed),
        ])
    columns = ["2 workers", "req/s", "ours / this (range)", "CPU s/10k", "sw/req", "failed"]
    rate = found["conditions"]["rate"]
    title = f"Requests/s at 50 connections; at {rate}/s: server CPU s per 10 000, switches per request"
    return [(title, columns, rows)]


def span(ratios):
    if not ratios:
        return "–"
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"


def spread(found):
    counts = found["spread"]
    rows = [
        [LABELS[name], f"{goals.lopsided(own):.3f}", " ".join(map(str, own))]
        for name, own in counts.items()
    ]
    return [("Connections of 8 workers, one after the other", ["system", "max/mean", "each"], rows)]


def faults(found):
    made = []
    columns = ["system", "load", "failed", "events", "kinds"]
    for event, what in [("reload", "reloads of all workers"), ("kill", "kill -9 of one worker")]:
        title = f"Failed requests under {what} (light: 800/s; busy: 200/s, 4 ms each)"
        made.append((title, columns, [disturbed(one, one[event]) for one in found["faults"]]))
    return made


def disturbed(cell, own):
    kinds = [f"{count} {kind}" for kind, count in own["errors"].items()]
    if own["gave_up"]:
        kinds.append(f"gave up: {own['gave_up']}"[:40])
    label = LABELS[cell["system"]].partition(" (")[0] + ", graceful" * cell["graceful"]
    numbers = [sum(own["errors"].values()), own["events"]]
    return [label, cell["load"], *map(str, numbers), ", ".join(kinds) or "–"]


def classic(found):
    own = found["classic"]
    columns = ["system", "req/s", "answered", "failed"]
    titles = {
        "spin": "A loop of 10 000 000 turns, ab -c200 -t10",
        "throw": "The same handler, 200 clients, 10 s; each worker throws after 1 to 3 s",
        "restart": "The same handler, 200 clients, 10 s; a rolling restart after 3 s",
    }
    made = []
    for case, title in titles.items():
        rows = []
        for name, one in own[case].items():
            numbers = [one["rate"], one["answered"], one["failed"]]
            rows.append([LABELS[name], *map(whole, numbers)])
        made.append((title, columns, rows))
    rows = [[LABELS[name], " ".join(map(str, counts))] for name, counts in own["siege"].items()]
    made.append(("siege -c 100 -r 2: requests of each of 4 workers", ["system", "each"], rows))
    return made


def whole(number):
    return "did not start" if number is None else f"{number:.0f}"


def in_order(names):
    return [name for name in LABELS if name in names]


def terminal(found):
    """As text of 100 columns at most."""
    lines = [machine(found)]
    for title, columns, rows in tables(found):
        widths = [max(len(row[at]) for row in [columns, *rows]) for at in range(len(columns))]
        lines += ["", title]
        for row in [columns, *rows]:
            cells = [pad(text, width, at) for at, (text, width) in enumerate(zip(row, widths))]
            lines.append("  " + "  ".join(cells).rstrip())
    return "\n".join(lines)


def pad(text, width, at):
    number = text.replace(".", "").isdecimal()
    return text.rjust(width) if at and number else text.ljust(width)


def markdown(found):
    lines = [machine(found)]
    for title, columns, rows in tables(found):
        lines += ["", f"**{title}**", ""]
        lines += ["| " + " | ".join(row) + " |" for row in [columns, ["---"] * len(columns), *rows]]
    return "\n".join(lines)


def machine(found):
    host, conditions = found["host"], found["conditions"]
    load = found.get("load_average", ["?"])[0]
    rounds = f"{conditions['rounds']} rounds of {conditions['seconds']} s"
    load = f"{load:.1f}" if isinstance(load, float) else load
    first = f"{host['cpus']} CPUs ({host['cpu']}), Linux {host['kernel']}, {rounds}"
    second = f"began {found['started']}, load average at the end {load}"
    programs = "; ".join(f"{name}: {said}" for name, said in found["programs"].items())
    return "\n".join([first, second, *wrapped(programs)])


def wrapped(text, width=98):
    lines, line = [], ""
    for part in text.split("; "):
        if line and len(line) + len(part) + 2 > width:
            lines.append(line)
            line = ""
        line += ("; " if line else "") + part
    return [*lines, line]

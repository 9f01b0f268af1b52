"""What reuseport-launch is to reach beside its peers, and whether it does."""
import collections
import statistics

Goal = collections.namedtuple("Goal", ["what", "wanted", "found", "met"])

# Requests per second, as a multiple of the other's.
RATES = [("cluster-rr", 1.9), ("pm2", 2.8), ("haproxy", 1.7), ("hash", 0.98)]
# CPU seconds, as a share of Node cluster's.
CPU = 0.45
# Within this a spread is as even as whole connections can be.
EVEN = 1.0005


def paired(rounds, first, second, key):
    """`first` as a multiple of `second`, round by round."""
    both = [one for one in rounds if first in one and second in one and first != second]
    return [one[first][key] / one[second][key] for one in both if one[second][key]]


def judge(found):
    """The goals that what was measured can tell about."""
    return [
        *rates(found.get("rates", [])),
        *spread(found.get("spread", {})),
        *faults(found.get("faults", [])),
    ]


def rates(rounds):
    for name, wanted in RATES:
        if ratios := paired(rounds, "ours", name, "rate"):
            middle = statistics.median(ratios)
            yield Goal(f"requests/s: {name}", f"≥ {wanted} ×", f"{middle:.2f} ×", middle >= wanted)
    if ratios := paired(rounds, "ours", "cluster-rr", "cpu_10k"):
        middle = statistics.median(ratios)
        yield Goal("CPU s per 10 000: cluster-rr", f"≤ {CPU} ×", f"{middle:.2f} ×", middle <= CPU)


def lopsided(counts):
    """The largest as a multiple of the mean."""
    return max(counts) / statistics.mean(counts)


def spread(counts):
    if "ours" in counts:
        own = lopsided(counts["ours"])
        yield Goal("spread over 8: max/mean", "1.000", f"{own:.3f}", own <= EVEN)


def faults(cells):
    for event in ["reload", "kill"]:
        for cell in cells:
            if cell["system"] != "ours":
                continue
            own = cell[event]
            lost = sum(own["errors"].values())
            graceful = " (graceful)" if cell["graceful"] else ""
            what = f"{event}, {cell['load']}{graceful}: failed requests"
            met = lost == 0 and own["events"] > 0 and not own["gave_up"]
            yield Goal(what, "0", str(lost), met)

"""Each time that it gets USR1, writes so many lines `SLOT ROUND NUMBER xxx…` of so many bytes to its
standard output, and then `SLOT ROUND done`."""
import os
import signal
import sys

SLOT = os.environ["REUSEPORT_LAUNCH_SLOT"]
COUNT, LENGTH = map(int, sys.argv[1:])

signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
print(f"{SLOT} listens", flush=True)
rounds = 0
while True:
    signal.sigwait({signal.SIGUSR1})
    for number in range(COUNT):
        print(f"{SLOT} {rounds} {number} ".ljust(LENGTH - 1, "x"))
    print(f"{SLOT} {rounds} done", flush=True)
    rounds += 1

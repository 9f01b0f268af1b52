"""Writes 2000 long lines `SLOT FD NUMBER xxx…` to each of its outputs, in pieces that have nothing
to do with the lines."""
import os
import time

SLOT = os.environ["REUSEPORT_LAUNCH_SLOT"]
PIECE = 997


def text(fd):
    lines = (f"{SLOT} {fd} {number} {'x' * (250 + number % 100)}\n" for number in range(2000))
    return "".join(lines).encode()


texts = {fd: text(fd) for fd in (1, 2)}
while any(texts.values()):
    for fd, rest in texts.items():
        if rest:
            written = os.write(fd, rest[:PIECE])
            texts[fd] = rest[written:]
time.sleep(1000)

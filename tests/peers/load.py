"""Loads: the generator of `reuseport-launch bench`, and a client that asks who answers."""
import collections
import json
import socket
import subprocess

KINDS = ["refused", "reset", "closed", "timeout", "bad", "other"]


class Load:
    """A load that is being sent by a process of its own: a new connection for each request."""

    def __init__(self, binary, port, pace, seconds, warmup=0.0, seed=1, timeout=2.0):
        spec = {
            "address": f"127.0.0.1:{port}",
            "path": "/",
            "shape": {"kind": "connection"},
            "pace": pace,
            "warmup": warmup,
            "seconds": seconds,
            "timeout": timeout,
            "cpus": [],
            "seed": seed,
        }
        # It ends when its standard input does, so that stays open.
        pipe = subprocess.PIPE
        self.process = subprocess.Popen([binary, "__bench-load"], stdin=pipe, stdout=pipe, text=True)
        self.process.stdin.write(json.dumps(spec) + "\n")
        self.process.stdin.flush()

    def runs(self):
        return self.process.poll() is None

    def result(self):
        """Waits for its end, and returns what came of it."""
        text = self.process.stdout.read()
        self.process.stdin.close()
        if self.process.wait() != 0:
            raise RuntimeError("the load generator failed; what it said is above")
        return json.loads(text)

    def kill(self):
        self.process.kill()
        self.process.wait()


def closed(connections):
    """Each of so many clients sends the next request when it has its answer."""
    return {"kind": "closed", "connections": connections}


def steady(rate):
    """So many requests a second, at times set beforehand."""
    return {"kind": "open", "rate": rate, "connections": 1000}


def failed(result):
    """How many requests failed."""
    return sum(result["errors"][kind] for kind in KINDS)


def ask(port):
    """Who answers a new connection: the server's `X-Worker`, or what it says."""
    with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = b""
        while part := connection.recv(4096):
            answer += part
    head, _, body = answer.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 2"):
        raise OSError(f"not an answer: {head[:40]!r}")
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"x-worker":
            return value.strip()
    if b"chunked" in head.lower():
        return body.split(b"\r\n")[1]
    return body.strip()


def tally(port, connections):
    """How many of so many connections, one after the other, each worker got."""
    return collections.Counter(ask(port) for _ in range(connections))

"""A web application on port 8080. It answers

    /           with its pid
    /slow       with 20 bytes, over two seconds
    /version    with $VERSION, or what the file `release` in its working directory said at its start
    /health     200 when it is well, 503 when it is sick; it tells `SLOT probed`
    /grow       after it has taken 100 MB of memory, with its pid

and keeps connections open for clients that want that. It tells `SLOT listening`. USR2 makes it sick
and USR1 well; it handles no other signal. Words on its command line change that:

    after=SECONDS   it listens that late
    sick            it is sick at first
    sick=FILE       it is sick while this file exists
    notify          it tells $NOTIFY_SOCKET its status, and that it is ready when USR1 makes it well
    stubborn        TERM does not end it, but from then on it answers `late PID` on /
"""
import http.server
import os
import pathlib
import signal
import socket
import sys
import threading
import time
import urllib.parse

WORDS = dict((word.split("=", 1) + [""])[:2] for word in sys.argv[1:])
SIGNALS = {signal.SIGUSR1, signal.SIGUSR2} | ({signal.SIGTERM} if "stubborn" in WORDS else set())
RELEASE = pathlib.Path("release")
VERSION = os.environ.get("VERSION") or (RELEASE.read_text() if RELEASE.exists() else "")

sick = WORDS.get("sick") == ""
prefix = ""
grown = []


def tell(what):
    os.write(1, f"{os.environ.get('REUSEPORT_LAUNCH_SLOT')} {what}\n".encode())


def notify(message):
    if "notify" in WORDS:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.sendto(message.encode(), os.environ["NOTIFY_SOCKET"])


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        path = urllib.parse.urlsplit(self.path).path
        status, body = 200, f"{prefix}{os.getpid()}"
        if path == "/slow":
            self.start(200, 20)
            for _ in range(20):
                time.sleep(0.1)
                self.wfile.write(b".")
            return
        if path == "/version":
            body = VERSION
        elif path == "/health":
            tell("probed")
            if sick or WORDS.get("sick") and os.path.exists(WORDS["sick"]):
                status = 503
        elif path == "/grow":
            grown.append(b"x" * 100_000_000)
        self.start(status, len(body))
        self.wfile.write(body.encode())

    def start(self, status, length):
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128


# Blocked in every thread, so that none interrupts a request.
signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
time.sleep(float(WORDS.get("after", 0)))
server = Server(("", 8080), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
notify("STATUS=warming up")
tell("listening")
while True:
    got = signal.sigwait(SIGNALS)
    if got == signal.SIGTERM:
        prefix = "late "
        tell("SIGTERM")
    else:
        sick = got == signal.SIGUSR2
        if not sick:
            notify("READY=1\nSTATUS=serving")
        tell("is sick" if sick else "is well")

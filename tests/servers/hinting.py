"""A web server on port 8080 that tells the launcher how many requests it is busy with, as its hint.

It answers / with its pid. /wait is answered with the pid, too, and goes on until the client leaves.
"""
import http.server
import json
import os
import socket
import threading

SLOT = int(os.environ["REUSEPORT_LAUNCH_SLOT"])
GENERATION = int(os.environ["REUSEPORT_LAUNCH_GENERATION"])

lock = threading.Lock()
busy = 0


def change(by):
    global busy
    with lock:
        busy += by
        request = {"verb": "hint", "slot": SLOT, "generation": GENERATION, "value": busy}
        with socket.socket(socket.AF_UNIX) as control:
            control.connect(os.environ["REUSEPORT_LAUNCH_CONTROL"])
            control.sendall(json.dumps(request).encode() + b"\n")
            answer = json.loads(control.makefile().readline())
        if not answer["ok"]:
            os.write(2, f"{answer}\n".encode())


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        waits = self.path == "/wait"
        if waits:
            change(+1)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(str(os.getpid()).encode())
        if waits:
            self.rfile.read()
            change(-1)

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer(("0.0.0.0", 8080), Handler).serve_forever()

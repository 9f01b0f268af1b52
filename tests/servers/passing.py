"""An HTTP server on port 8080 that answers with its pid. On USR1 it opens and closes sockets that it
needs only for a moment, then one on TCP port 8081 that stays.

    passing.py tcp 20      20 ports, one after the other; each socket is shut down a little later than
                           the one before, to meet the launcher at all that it does about them
    passing.py udp 60      60 ports, one after the other
"""
import http.server
import os
import signal
import socket
import sys
import threading
import time

PROTOCOL, COUNT = sys.argv[1], int(sys.argv[2])


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = str(os.getpid()).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def tcp(number):
    with socket.create_server(("", 8100 + number)) as passing:
        time.sleep(number / 1000)
        passing.shutdown(socket.SHUT_RDWR)
    # Else it would be busy with this one when the next one comes and goes.
    time.sleep(0.05)


def udp(number):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as passing:
        passing.bind(("", 40000 + number))


signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
server = http.server.ThreadingHTTPServer(("", 8080), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
signal.sigwait({signal.SIGUSR1})
for number in range(COUNT):
    {"tcp": tcp, "udp": udp}[PROTOCOL](number)
lasting = socket.create_server(("", 8081))
threading.Event().wait()

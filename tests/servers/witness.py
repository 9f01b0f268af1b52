"""An HTTP server on port 8080 that answers with its pid and tells which signals it gets, as lines
`SLOT SIGNAL` on standard output. With the argument `stubborn` that is all it does about them; else
it ends after the first, late enough to see a second."""
import http.server
import os
import signal
import sys
import threading

SIGNALS = {signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2}
SLOT = os.environ["REUSEPORT_LAUNCH_SLOT"]


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = str(os.getpid()).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def tell(number):
    os.write(1, f"{SLOT} {signal.Signals(number).name}\n".encode())


# Blocked in every thread, so that each one is taken by a wait below and none interrupts a request.
signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
server = http.server.ThreadingHTTPServer(("", 8080), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
while True:
    tell(signal.sigwait(SIGNALS))
    if "stubborn" not in sys.argv:
        while second := signal.sigtimedwait(SIGNALS, 0.5):
            tell(second.si_signo)
        os._exit(0)

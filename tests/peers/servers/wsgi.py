"""The application that gunicorn serves: it answers with the process id, after SPIN_MS of work."""
import os
import time

SPIN = float(os.environ.get("SPIN_MS", 0)) / 1000


def app(environ, start_response):
    end = time.perf_counter() + SPIN
    while time.perf_counter() < end:
        pass
    body = str(os.getpid()).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]

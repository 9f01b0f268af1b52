"""An HTTP server that answers with its pid. It does nothing before it is told to: it listens after USR1,
and accepts, one connection after another, after USR2. Each step is a line `SLOT WORD` on standard output.

    patient.py 0.0.0.0 8080
"""
import os
import signal
import socket
import sys

ADDRESS, PORT = sys.argv[1], int(sys.argv[2])
# More than wait in it, twice over: a full queue would not finish a handshake.
BACKLOG = 64
SLOT = os.environ["REUSEPORT_LAUNCH_SLOT"]


def tell(word):
    print(SLOT, word, flush=True)


def serve(connection):
    with connection:
        connection.settimeout(5)
        connection.recv(65536)
        connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n%d" % os.getpid())


signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGUSR2})
tell("waiting")
signal.sigwait({signal.SIGUSR1})
family = socket.AF_INET6 if ":" in ADDRESS else socket.AF_INET
listener = socket.create_server((ADDRESS, PORT), family=family, backlog=BACKLOG)
tell("listening")
signal.sigwait({signal.SIGUSR2})
tell("accepting")
while True:
    accepted, _ = listener.accept()
    try:
        serve(accepted)
    except OSError as error:
        # The client's affair.
        print(error, file=sys.stderr)

"""A server on port 8080 that accepts late: ten times a second it answers, with its pid, all that
wait. Its accept queue is hardly ever empty. It tells `SLOT empty` of a connection that brings no request. TERM
ends it at once, but not between a connection that it has accepted and its answer."""
import os
import signal
import socket
import time

ANSWER = b"HTTP/1.0 200 OK\r\n\r\n" + str(os.getpid()).encode()

listener = socket.create_server(("", 8080), backlog=128)
listener.setblocking(False)
while True:
    time.sleep(0.1)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    while True:
        try:
            connection, _ = listener.accept()
        except BlockingIOError:
            break
        with connection:
            connection.settimeout(1)
            if connection.recv(4096):
                connection.sendall(ANSWER)
            else:
                print(os.environ["REUSEPORT_LAUNCH_SLOT"], "empty", flush=True)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})

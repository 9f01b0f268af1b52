"""A server on the sockets that its arguments name; it answers with its process id.

    sockets.py tcp,0.0.0.0,8080 udp,::1,5353 tcp,::,80,v6only tcp,127.0.0.1,81,reuseport

USR1 closes them all, USR2 opens them again.
"""
import os
import selectors
import signal
import socket
import sys

PID = str(os.getpid()).encode()
selector = selectors.DefaultSelector()


def opened(spec):
    protocol, address, port, *flags = spec.split(",")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    tcp = protocol == "tcp"
    sock = socket.socket(family, socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, "v6only" in flags)
    if tcp:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if "reuseport" in flags:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.setblocking(False)
    sock.bind((address, int(port)))
    if tcp:
        sock.listen()
    return sock


def open_all(*_):
    for spec in sys.argv[1:]:
        selector.register(opened(spec), selectors.EVENT_READ)
    print("opened", flush=True)


def close_all(*_):
    for key in list(selector.get_map().values()):
        selector.unregister(key.fileobj)
        key.fileobj.close()
    print("closed", flush=True)


def serve(sock):
    if sock.type == socket.SOCK_DGRAM:
        _, client = sock.recvfrom(65536)
        sock.sendto(PID, client)
        return
    connection, _ = sock.accept()
    with connection:
        connection.settimeout(5)
        connection.recv(65536)
        connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + PID)


signal.signal(signal.SIGUSR1, close_all)
signal.signal(signal.SIGUSR2, open_all)
open_all()
while True:
    for key, _ in selector.select():
        try:
            serve(key.fileobj)
        except OSError as error:
            # The client is gone, or a signal has closed the socket.
            print(error, file=sys.stderr)

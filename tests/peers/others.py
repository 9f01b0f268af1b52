"""The other systems: a proxy in front of node, and servers with workers of their own."""
import os
import signal

from install import find
from load import ask
from paths import SERVERS
from systems import PORT, SERVER, Launched, System, parent_of, until


def fill(name, **values):
    """A configuration with its values filled in."""
    with open(os.path.join(SERVERS, name)) as file:
        return file.read().format(**values)


class Haproxy(System):
    """HAProxy in front of one server for each worker, which whoever looks after them starts again."""

    programs = ["node", "haproxy"]

    def start(self):
        self.servers = [self.start_server(slot) for slot in range(self.workers)]
        line = "    server s{0} 127.0.0.1:{1} check inter 500 fall 2 rise 1"
        lines = [line.format(slot, PORT + 1 + slot) for slot in range(self.workers)]
        file = os.path.join(self.scratch, "haproxy.cfg")
        with open(file, "w") as out:
            out.write(fill("haproxy.cfg", port=PORT, servers="\n".join(lines)))
        self.main = self.spawn([find("haproxy"), "-db", "-f", file])

    def start_server(self, slot):
        port = PORT + 1 + slot
        server = self.spawn([find("node"), SERVER, str(port)])
        until("a server to listen", lambda: self.listens(port))
        return server

    @staticmethod
    def listens(port):
        try:
            return ask(port)
        except OSError:
            return None

    def stop(self):
        super().stop()
        for server in getattr(self, "servers", []):
            server.kill()
            server.wait()

    def reload(self):
        for slot, server in enumerate(self.servers):
            server.terminate()
            server.wait()
            self.servers[slot] = self.start_server(slot)

    def kill_one(self):
        slot, server = min(enumerate(self.servers), key=lambda entry: entry[1].pid)
        server.kill()
        server.wait()
        self.servers[slot] = self.start_server(slot)


class Gunicorn(System):
    """gunicorn: its workers accept from one socket."""

    programs = ["gunicorn"]
    options = []

    def command(self):
        return gunicorn(self.workers, self.options)

    def is_worker(self, pid, line):
        return "gunicorn" in line and parent_of(pid) == self.main.pid

    def reload(self):
        self.signal_and_wait(signal.SIGHUP)


class GunicornReuseport(Gunicorn):
    options = ["--reuse-port"]


class GunicornLaunched(Launched):
    """gunicorn with one worker, under reuseport-launch."""

    programs = ["gunicorn"]

    def server(self):
        return gunicorn(1, [])

    def is_worker(self, pid, line):
        return "gunicorn" in line and "gunicorn" in command_line(parent_of(pid), self)


def command_line(pid, system):
    """The command line of a process below the launcher; that of the launcher has its server's in it."""
    if pid == system.main.pid:
        return ""
    try:
        with open(f"/proc/{pid}/cmdline") as file:
            return file.read()
    except OSError:
        return ""


def gunicorn(workers, options):
    bind = ["--bind", f"0.0.0.0:{PORT}", "--workers", str(workers)]
    return [find("gunicorn"), "--chdir", SERVERS, *bind, *options, "wsgi:app"]


class Nginx(System):
    """nginx: its workers accept from one socket."""

    programs = ["nginx"]
    listen = str(PORT)

    def command(self):
        return self.nginx(self.workers, self.scratch)

    def nginx(self, workers, prefix):
        for slot in range(self.workers):
            os.makedirs(prefix.replace("{slot}", str(slot)), exist_ok=True)
        file = os.path.join(self.scratch, "nginx.conf")
        with open(file, "w") as out:
            out.write(fill("nginx.conf", workers=workers, listen=self.listen))
        return [find("nginx"), "-p", prefix, "-e", "error.log", "-c", file]

    def is_worker(self, pid, line):
        return line.startswith("nginx: worker process")

    def reload(self):
        self.signal_and_wait(signal.SIGHUP)


class NginxReuseport(Nginx):
    listen = f"{PORT} reuseport"


class NginxLaunched(Nginx):
    """nginx with one worker, under reuseport-launch."""

    def command(self):
        server = self.nginx(1, os.path.join(self.scratch, "{slot}"))
        self.name = os.path.basename(self.cgroup.path)
        options = ["--workers", str(self.workers), "--name", self.name]
        return [self.place.binary, *options, "--", *server]

    reload = Launched.reload

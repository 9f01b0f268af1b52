"""The systems that are compared: how each is started, reloaded and stopped."""
import os
import re
import signal
import subprocess
import time

from cgroup import Cgroup, read
from install import find
from load import ask
from paths import CLUSTER, PM2, SERVERS

PORT = 8080
SERVER = os.path.join(SERVERS, "server.js")
# A process of the server itself, not of who started it.
NODE = re.compile(r"^\S*node \S*peers/servers/server\.js")
PATIENCE = 20


def until(what, found, patience=PATIENCE):
    """Waits until `found` returns something, and returns it."""
    deadline = time.monotonic() + patience
    while not (value := found()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {patience} s for {what}")
        time.sleep(0.01)
    return value


class System:
    """A system that serves on `PORT`. `with` starts and stops it; nothing of it is left."""

    programs = ["node"]

    def __init__(self, place, workers=2, env=None):
        self.place = place
        self.workers = workers
        self.env = {**os.environ, **{key: str(value) for key, value in (env or {}).items()}}

    def command(self):
        """What is started."""
        raise NotImplementedError

    def is_worker(self, pid, line):
        """Whether the process with this command line serves requests."""
        return bool(NODE.match(line))

    def reload(self):
        """Replaces all workers in the system's own way, and waits until that is done."""
        raise NotImplementedError

    def __enter__(self):
        self.cgroup = Cgroup(type(self).__name__.lower())
        self.scratch = os.path.join(self.place.scratch, os.path.basename(self.cgroup.path))
        os.makedirs(self.scratch, exist_ok=True)
        self.log = open(os.path.join(self.scratch, "log"), "ab")
        try:
            self.start()
            until("all workers to run", lambda: len(self.pids()) == self.workers)
            until("an answer", self.answers)
            self.wait_for_all()
        except BaseException as error:
            self.__exit__(None, None, None)
            last = read(os.path.join(self.scratch, "log"))[-600:]
            raise RuntimeError(f"cannot start {type(self).__name__}: {error}\n{last}") from error
        return self

    def __exit__(self, *_):
        try:
            self.stop()
        finally:
            self.cgroup.remove()
            self.log.close()

    def start(self):
        self.main = self.spawn(self.command())

    def stop(self):
        """In good order. What is left then is killed with its cgroup."""
        if getattr(self, "main", None) and self.main.poll() is None:
            self.main.terminate()
            try:
                self.main.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.main.kill()
                self.main.wait()

    def spawn(self, command):
        return subprocess.Popen(
            self.cgroup.wrap(command),
            env=self.env,
            cwd=self.scratch,
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
        )

    def pids(self):
        """The workers, the oldest first."""
        lines = {pid: read(f"/proc/{pid}/cmdline").replace("\0", " ") for pid in self.cgroup.pids()}
        workers = [pid for pid, line in lines.items() if self.is_worker(pid, line)]
        return sorted(workers, key=age)

    def kill_one(self):
        """kill -9 of the oldest worker. A kill counts as over when there are all workers again."""
        if pids := self.pids():
            os.kill(pids[0], signal.SIGKILL)
            until("a worker to be replaced", lambda: pids[0] not in self.pids())
            until("all workers to run", lambda: len(self.pids()) >= self.workers)

    def signal_and_wait(self, which):
        """Has all workers replaced by a signal to the main process."""
        before = set(self.pids())
        self.main.send_signal(which)
        until("new workers", lambda: len(self.pids()) == self.workers and not before & set(self.pids()))

    def answers(self):
        try:
            return ask(PORT)
        except OSError:
            return None

    def wait_for_all(self):
        """Until each worker has answered. Some systems give one of them almost nothing, so this is given
        up after a while."""
        seen, deadline = set(), time.monotonic() + 3
        while len(seen) < self.workers and time.monotonic() < deadline:
            seen.add(self.answers())


def age(pid):
    """When a process started, in clock ticks since boot."""
    fields = read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return (int(fields[19]) if len(fields) > 19 else 0, pid)


def parent_of(pid):
    fields = read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return int(fields[1]) if fields else 0


class Single(System):
    """One process."""

    def command(self):
        return [find("node"), SERVER, str(PORT)]


class Launched(System):
    """Under reuseport-launch."""

    options = []

    def server(self):
        return [find("node"), SERVER, str(PORT)]

    def command(self):
        self.name = os.path.basename(self.cgroup.path)
        options = ["--workers", str(self.workers), "--name", self.name, *self.options]
        return [self.place.binary, *options, "--", *self.server()]

    def reload(self):
        verb = [self.place.binary, "reload", self.name]
        subprocess.run(verb, stdout=self.log, stderr=self.log, check=True)


class LeastConn(Launched):
    options = ["--steer", "least-conn"]


class KernelHash(Launched):
    """SO_REUSEPORT alone: the kernel's hash chooses."""

    options = ["--steer", "kernel"]


class ClusterRr(System):
    """Node's cluster module: its master accepts and hands over."""

    policy = "SCHED_RR"

    def command(self):
        return [find("node"), CLUSTER, self.policy, SERVER, str(PORT), str(self.workers)]

    def reload(self):
        self.signal_and_wait(signal.SIGUSR2)


class ClusterNone(ClusterRr):
    """Node's cluster module: all workers accept from one socket."""

    policy = "SCHED_NONE"


class Pm2(System):
    """PM2's cluster mode."""

    programs = ["node", "pm2"]

    def pm2(self, *words):
        self.env["PM2_HOME"] = os.path.join(self.scratch, "home")
        command = self.cgroup.wrap([find("node"), PM2, *words])
        streams = {"stdin": subprocess.DEVNULL, "stdout": self.log, "stderr": self.log}
        subprocess.run(command, env=self.env, cwd=self.scratch, check=True, **streams)

    def start(self):
        self.pm2("start", SERVER, "-i", str(self.workers), "--name", "app", "--", str(PORT))

    def stop(self):
        self.pm2("kill")

    def reload(self):
        self.pm2("reload", "app")
        until("the old workers to end", lambda: len(self.pids()) == self.workers)

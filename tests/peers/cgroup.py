"""A cgroup (v2) for all processes of a system: it tells what they use, and none can leave it."""
import errno
import os
import time


def parent():
    """The cgroup of this process."""
    with open("/proc/self/mounts") as mounts:
        kinds = [line.split(" ") for line in mounts]
    roots = [fields[1] for fields in kinds if fields[2] == "cgroup2"]
    with open("/proc/self/cgroup") as lines:
        own = [line[3:].strip() for line in lines if line.startswith("0::")]
    if not roots or not own:
        raise OSError(errno.ENODEV, "no cgroup v2 hierarchy is mounted")
    return roots[0] + own[0].rstrip("/")


class Cgroup:
    """A cgroup below that of this process."""

    def __init__(self, name):
        self.path = os.path.join(parent(), f"peers-{os.getpid()}-{name}")
        os.mkdir(self.path)

    def wrap(self, command):
        """A command that runs `command` in this cgroup."""
        return ["sh", "-c", 'echo 0 > "$0/cgroup.procs" && exec "$@"', self.path, *command]

    def pids(self):
        """All processes in it and below."""
        found = []
        for path, _, _ in os.walk(self.path):
            try:
                with open(os.path.join(path, "cgroup.procs")) as lines:
                    found += [int(line) for line in lines]
            except OSError:
                # It has just been removed.
                continue
        return found

    def cpu(self):
        """CPU seconds of all that have ever been in it, user and system."""
        with open(os.path.join(self.path, "cpu.stat")) as lines:
            values = dict(line.split() for line in lines)
        return int(values["usage_usec"]) / 1e6

    def switches(self):
        """Context switches of those that live, voluntary or not."""
        count = 0
        for pid in self.pids():
            for task in listdir(f"/proc/{pid}/task"):
                status = read(f"/proc/{pid}/task/{task}/status")
                for line in status.splitlines():
                    if "ctxt_switches" in line:
                        count += int(line.split()[1])
        return count

    def remove(self):
        """Kills what is left in it, and removes it."""
        with open(os.path.join(self.path, "cgroup.kill"), "w") as kill:
            kill.write("1")
        # A process that is ending stays in it for a moment, unlisted.
        deadline = time.monotonic() + 10
        while not self.removed():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.path} does not become empty")
            time.sleep(0.01)

    def removed(self):
        try:
            for path, _, _ in os.walk(self.path, topdown=False):
                os.rmdir(path)
        except OSError:
            return False
        return True


def read(path):
    """A file's text; empty if it is not there any more."""
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""


def listdir(path):
    try:
        return os.listdir(path)
    except OSError:
        return []

"""Installs the peers by their packages' names."""
import os
import shutil
import subprocess

from paths import PM2, TARGET

# The program that is looked for, and the Debian package that has it.
PACKAGES = {
    "node": "nodejs",
    "nginx": "nginx-light",
    "haproxy": "haproxy",
    "gunicorn": "gunicorn",
    "ab": "apache2-utils",
    "siege": "siege",
    "ip": "iproute2",
    "unshare": "util-linux",
}
NPM = {"pm2": "pm2"}


def missing(programs):
    """Those of `programs` that are not there."""
    return [name for name in programs if not find(name)]


def find(program):
    """A program's path. The system's own directories come first, because a version manager's stand-ins
    start slowly."""
    if program == "pm2":
        return PM2 if os.path.exists(PM2) else None
    path = "/usr/sbin:/usr/bin:/sbin:/bin:" + os.environ.get("PATH", "")
    return shutil.which(program, path=path)


def install(programs):
    """Installs what is missing. Returns what is missing then."""
    wanted = missing(programs)
    packages = [PACKAGES[name] for name in wanted if name in PACKAGES]
    if packages and shutil.which("apt-get") and os.geteuid() == 0:
        env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        options = ["--yes", "--no-install-recommends"]
        run(["apt-get", "--quiet", "update"], env)
        run(["apt-get", "--quiet", "install", *options, *packages], env)
    if "pm2" in wanted and find("npm"):
        os.makedirs(TARGET, exist_ok=True)
        options = ["--no-save", "--no-audit", "--no-fund", "--prefix", TARGET]
        run([find("npm"), "install", *options, NPM["pm2"]], os.environ)
    return missing(programs)


def run(command, env):
    # What fails shows as a program that is missing afterwards, and what it said is on the terminal.
    subprocess.run(command, env=env, stdin=subprocess.DEVNULL, check=False)


def versions(programs):
    """What each says its version is, in a line."""
    flags = {"nginx": "-v", "haproxy": "-v", "ab": "-V", "ip": "-V"}
    said = {}
    for name in programs:
        command = [find(name), flags.get(name, "--version")]
        env = {**os.environ, "PM2_HOME": "/nonexistent"} if name == "pm2" else None
        if name == "pm2":
            # Asked for its version, it would start its daemon.
            command = [find("node"), "-p", f"require('{os.path.dirname(PM2)}/../package').version"]
        done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
        lines = (done.stdout + done.stderr).strip().splitlines()
        said[name] = lines[0] if lines else "?"
    return said

"""Where things are."""
import os

HERE = os.path.dirname(os.path.abspath(__file__))
REPO = os.path.dirname(os.path.dirname(HERE))
SERVERS = os.path.join(HERE, "servers")
CLUSTER = os.path.join(REPO, "tests", "servers", "cluster.js")
TARGET = os.path.join(REPO, "target", "peers")
PM2 = os.path.join(TARGET, "node_modules", "pm2", "bin", "pm2")
BINARY = os.path.join(REPO, "target", "release", "reuseport-launch")

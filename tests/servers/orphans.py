"""Makes 20 orphans. Each waits until it was given to the launcher, says so, and ends."""
import os
import time

launcher = os.getppid()
for _ in range(20):
    if os.fork() == 0:
        if os.fork() == 0:
            while os.getppid() != launcher:
                time.sleep(0.001)
            os.write(1, b"adopted\n")
        os._exit(0)
    os.wait()
time.sleep(1000)

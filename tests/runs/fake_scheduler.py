"""The real scheduler with fake workers: python fake_scheduler.py HOME IDLE_S."""

import signal
import sys
from functools import partial
from pathlib import Path

from runs.launchers import local
from runs.scheduler import serve

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
    worker = Path(__file__).with_name("fake_worker.py")
    home = Path(sys.argv[1])

    def count_oom_kills() -> int:
        """The kernel's counter, played by a file: one more per worker that ran."""
        ran = home / "ran.txt"
        return len(ran.read_text().split()) if (home / "short-of-memory").exists() and ran.exists() else 0

    launch = partial(local, command=(sys.executable, str(worker)))
    idle_s = float(sys.argv[2])
    has_served = serve(home, launch, idle_s=idle_s, poll_s=0.03, count_oom_kills=count_oom_kills)
    print("served" if has_served else "not elected", flush=True)

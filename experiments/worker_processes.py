"""What a worker process of a pool does first: it leaves Ctrl-C to its parent, and does not outlive it."""

from __future__ import annotations

import os
import select
import signal
import threading


def prepare_worker(parent_pid: int) -> None:
    """Leave Ctrl-C to the parent, and end with it, however it ends: what is half done is begun anew."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent_fd = os.pidfd_open(parent_pid)

    def end_with_parent() -> None:
        poll = select.poll()
        poll.register(parent_fd, select.POLLIN)
        poll.poll()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()

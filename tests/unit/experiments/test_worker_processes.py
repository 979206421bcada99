"""A worker ends with its parent, however that ends."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
PARENT = """
import multiprocessing, os, signal
from concurrent.futures import ProcessPoolExecutor
from experiments.worker_processes import prepare_worker
if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=prepare_worker, initargs=(os.getpid(),)) as pool:
        print(pool.submit(os.getpid).result(), flush=True)
        signal.pause()
"""


def test_a_worker_does_not_outlive_a_parent_that_is_killed(tmp_path: Path) -> None:
    program = tmp_path / "parent.py"
    program.write_text(PARENT)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, str(program)], env=environment, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        worker_fd = os.pidfd_open(int(parent.stdout.readline()))
        parent.kill()
    ended = select.poll()
    ended.register(worker_fd, select.POLLIN)
    has_ended = bool(ended.poll(10_000))
    if not has_ended:
        signal.pidfd_send_signal(worker_fd, signal.SIGKILL)
    os.close(worker_fd)
    assert has_ended

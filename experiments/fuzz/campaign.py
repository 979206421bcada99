"""Many random schedules on all cores, until one breaks an invariant, their number is reached, or time is up."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from experiments.fuzz.case import draw_case
from experiments.fuzz.shrink import shrink, still_breaks
from experiments.fuzz.trial import Trial, try_seed
from experiments.progress import CountBar
from experiments.toml_text import to_toml
from experiments.worker_processes import prepare_worker

SHRINK_LIMIT_S: Final = 60.0
#: Schedules handed to each worker in advance.
_AHEAD: Final = 2


@dataclass(frozen=True, slots=True)
class Campaign:
    """What came of it."""

    runs: int  #: that came to their end
    virtual_s: float
    wall_s: float
    broken: Trial | None  #: the first schedule that broke an invariant


def run_campaign(seed: int, *, runs: int | None, time_limit_s: float | None, jobs: int | None = None) -> Campaign:
    """Try schedules *seed*, *seed* + 1, … and stop at the first that breaks an invariant.

    Args:
        seed: of the first schedule.
        runs: how many; None: until time is up.
        time_limit_s: of wall clock; None: until all are done.
        jobs: processes; None: one a core.
    """
    workers = jobs or len(os.sched_getaffinity(0))
    begun_s = time.monotonic()
    until_s = float("inf") if time_limit_s is None else begun_s + time_limit_s
    seeds: Iterator[int] = iter(itertools.count(seed) if runs is None else range(seed, seed + runs))
    done, virtual_s, broken = 0, 0.0, list[Trial]()
    context = multiprocessing.get_context("spawn")  # a fork would copy the thread of the progress bar
    with (
        CountBar("random schedules", "schedules", runs) as bar,
        ProcessPoolExecutor(workers, mp_context=context, initializer=prepare_worker, initargs=(os.getpid(),)) as pool,
    ):
        try:
            waiting: set[Future[Trial]] = {
                pool.submit(try_seed, one) for one in itertools.islice(seeds, _AHEAD * workers)
            }
            while waiting and not broken and time.monotonic() < until_s:
                ended, waiting = wait(waiting, timeout=1.0, return_when=FIRST_COMPLETED)
                for future in ended:
                    trial = future.result()
                    done, virtual_s = done + 1, virtual_s + trial.virtual_s
                    if trial.violations:
                        broken.append(trial)
                waiting |= {pool.submit(try_seed, one) for one in itertools.islice(seeds, len(ended))}
                bar.advance(done, time_limit_s)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    first = min(broken, key=lambda trial: trial.seed, default=None)
    return Campaign(done, virtual_s, time.monotonic() - begun_s, first)


def write_shrunk(trial: Trial, folder: Path, *, limit_s: float = SHRINK_LIMIT_S) -> Path:
    """Shrink the schedule that *trial* ran, for at most about *limit_s*, and write it as an experiment file."""
    until_s = time.monotonic() + limit_s
    case = shrink(draw_case(trial.seed), still_breaks(trial.kinds), may_go_on=lambda: time.monotonic() < until_s)
    path = folder / f"fuzz-{trial.seed}.toml"
    comment = "\n".join(
        (
            f"Shrunk from schedule {trial.seed} of hconf fuzz-schedules, which broke:",
            *(f"  {violation}" for violation in trial.violations),
            f"hconf run --mode simulated {path.name}",
        )
    )
    path.write_text(to_toml(case, comment=comment), encoding="utf-8")
    return path

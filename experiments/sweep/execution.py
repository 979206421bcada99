"""Where the points of a sweep run: in this process one after the other, in processes of this machine, or on a Dask cluster.

Each yields outcomes as they come; what has run is the same wherever that was.
"""

# ruff: noqa: PLC0415  # distributed is an extra, and takes a second to load

from __future__ import annotations

import functools
import importlib.util
import itertools
import multiprocessing
import os
import re
import socket
from collections.abc import Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from experiments.sweep.plan import Point, SweepPlan
from experiments.sweep.point import PointOutcome, run_point, run_point_packed, unpack_point
from experiments.worker_processes import prepare_worker
from topologies.errors import CapabilityError, InputError

#: Points handed to each worker in advance.
_AHEAD: Final = 2
_CONNECT_LIMIT_S: Final = 10.0
_ADDRESS: Final = re.compile(r"(?:(?:tcp|tls)://)?(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+):(?P<port>[0-9]{1,5})")
_GO_ON: Final = "the same command goes on with what is left"

Outcomes = Generator[PointOutcome, None, None]


class Execution(Protocol):
    def run(self, plan: SweepPlan, points: Sequence[Point], directory: Path) -> Outcomes:
        """Run *points*, each into its folder in *directory*, and yield how each ended, in any order."""


@dataclass(frozen=True, slots=True)
class Here:
    """One after the other in this process: what emulated networks need, and one core."""

    def run(self, plan: SweepPlan, points: Sequence[Point], directory: Path) -> Outcomes:
        for point in points:
            yield run_point(plan, point, directory / point.folder_name)


@dataclass(frozen=True, slots=True)
class Processes:
    """Processes of this machine, each with one point at a time."""

    jobs: int

    def run(self, plan: SweepPlan, points: Sequence[Point], directory: Path) -> Outcomes:
        context = multiprocessing.get_context("spawn")  # a fork would copy the thread of the progress bar
        left = iter(points)
        with ProcessPoolExecutor(
            self.jobs, mp_context=context, initializer=prepare_worker, initargs=(os.getpid(),)
        ) as pool:
            try:
                waiting: set[Future[PointOutcome]] = set()
                while True:
                    for point in itertools.islice(left, _AHEAD * self.jobs - len(waiting)):
                        waiting.add(pool.submit(run_point, plan, point, directory / point.folder_name))
                    if not waiting:
                        return
                    ended, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                    for future in ended:
                        yield future.result()
            except BrokenProcessPool as error:
                raise CapabilityError(
                    where="hconf sweep",
                    problem="a worker process was killed, perhaps for want of memory",
                    remedy=f"give fewer --jobs; {_GO_ON}",
                ) from error
            finally:
                pool.shutdown(wait=False, cancel_futures=True)


@dataclass(frozen=True, slots=True)
class DaskCluster:
    """A Dask cluster: its workers need hconf installed, the same version, and nothing of this machine's disk."""

    scheduler: str  #: address, such as tcp://10.0.0.1:8786

    def check(self) -> None:
        """Raise CapabilityError where the extra is not installed, InputError where nothing listens."""
        if importlib.util.find_spec("distributed") is None:
            raise CapabilityError(
                where="--dask", problem="the package `distributed` is not installed", remedy="pip install 'hconf[dask]'"
            )
        found = _ADDRESS.fullmatch(self.scheduler)
        if found is None:
            raise self._no_scheduler("that is no address")
        try:
            socket.create_connection((found["host"].strip("[]"), int(found["port"])), timeout=_CONNECT_LIMIT_S).close()
        except (OSError, OverflowError) as error:
            raise self._no_scheduler(f"nothing answers there: {error}") from error

    def run(self, plan: SweepPlan, points: Sequence[Point], directory: Path) -> Outcomes:
        self.check()
        from distributed import as_completed

        by_number = {point.number: point for point in points}
        with self._connected() as client:
            futures = client.map(functools.partial(run_point_packed, plan), points, pure=False, retries=2)
            for _, (outcome, packed) in as_completed(futures, with_results=True, loop=client.loop):
                if packed:
                    unpack_point(packed, directory / by_number[outcome.number].folder_name)
                yield outcome

    def _connected(self) -> Any:  # noqa: ANN401 - distributed is not there for the type checker where it is not installed
        from distributed import Client

        try:
            return Client(self.scheduler, timeout=_CONNECT_LIMIT_S, set_as_default=False)
        except OSError as error:
            raise self._no_scheduler(f"what answers there is no Dask scheduler: {error}") from error

    def _no_scheduler(self, problem: str) -> InputError:
        return InputError(
            where=f"--dask {self.scheduler}",
            problem=problem,
            remedy="give the address that `dask scheduler` prints, such as tcp://10.0.0.1:8786",
        )

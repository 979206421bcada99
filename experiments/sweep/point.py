"""One point of a sweep: run here, or packed up for whoever runs it and unpacked again."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from msgspec import Struct

from experiments.run_folder import RunVerdict
from experiments.runner import run_experiment
from experiments.sweep.plan import Point, SweepPlan


class PointOutcome(Struct, frozen=True):
    """How a point ended; its folder is complete unless it was interrupted."""

    number: int
    verdict: RunVerdict
    problem: str = ""


class SilentProgress:
    """Of many runs at once nobody reads what each does."""

    def phase(self, name: str) -> None:
        pass

    def running(self, at_s: float, duration_s: float) -> None:
        pass

    def note(self, text: str) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pass


def run_point(plan: SweepPlan, point: Point, folder: Path) -> PointOutcome:
    """Run *point* and make its run folder at *folder*.

    It is made beside and moved there when it is complete, so a folder of that name is a finished point. Raises: as
    `run_experiment`.
    """
    beside = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(beside, ignore_errors=True)
    outcome = run_experiment(plan.experiment(point), out=beside, progress=SilentProgress(), mode=plan.mode)
    if outcome.verdict == "interrupted":
        shutil.rmtree(beside, ignore_errors=True)
    else:
        beside.rename(folder)
    return PointOutcome(point.number, outcome.verdict, str(outcome.manifest.get("problem") or ""))


def run_point_packed(plan: SweepPlan, point: Point) -> tuple[PointOutcome, bytes]:
    """Run *point* on whatever machine this is, and return its run folder as a packed archive."""
    with tempfile.TemporaryDirectory(prefix="hconf-point-") as directory:
        folder = Path(directory) / point.folder_name
        outcome = run_point(plan, point, folder)
        packed = io.BytesIO()
        if folder.exists():
            with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=1) as archive:
                archive.add(folder, arcname=".")
        return outcome, packed.getvalue()


def unpack_point(packed: bytes, folder: Path) -> None:
    """Make the run folder of a point from the archive that `run_point_packed` returned. Raises: OSError."""
    beside = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    with tarfile.open(fileobj=io.BytesIO(packed), mode="r:gz") as archive:
        archive.extractall(beside, filter="data")
    os.utime(beside)
    beside.rename(folder)

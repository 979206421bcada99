"""The run folder: where everything of one run is kept, so that a killed run loses at most its last second."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import msgspec
from msgspec import Struct

from experiments.spec_schema import Expectation
from topologies.errors import InputError

T = TypeVar("T")

#: Version of manifest.json and of the raw records; grows when a reader of the old ones would misread the new.
SCHEMA_VERSION: Final = 1

RUNS_DIR: Final = Path("runs")

#: Folder of the simulated twin in that of an emulated run, and the key of its manifest that says that there is to be one.
TWIN: Final = "twin"

RunVerdict = Literal["running", "pass", "fail", "interrupted", "error"]


class _ExperimentShape(Struct):
    experiment: dict[str, Any] = {}
    expect: list[Expectation] = []
    fault: list[dict[str, Any]] = []


class _ManifestShape(Struct):
    """What the analysis reads of manifest.json; there is more in it."""

    verdict: str
    experiment: _ExperimentShape
    clock: dict[str, float]  #: CLOCK_MONOTONIC: start_s, epoch_s, quiesced_s, end_s, as far as it came
    phases: dict[str, float]
    cpu_busy_ratio: float | None = None
    problem: str = ""


class RunFolder:
    """A folder that this run has created and owns. Nothing in it is ever overwritten but what a report makes anew."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.raw = path / "raw"
        self.captures = path / "captures"
        self.manifest_path = path / "manifest.json"

    @classmethod
    def create(cls, name: str, *, out: Path | None, now: datetime) -> RunFolder:
        """Make the folder: *out*, or ``runs/<name>-<UTC time>``, which ``runs/latest`` then points at.

        Raises: InputError if it exists or cannot be made.
        """
        path = out if out is not None else default_path(name, now)
        check_can_create(path, given=out is not None)
        folder = cls(path.absolute())
        try:
            folder.path.mkdir(parents=True)
            folder.raw.mkdir()
            if out is None:
                point_latest(path.name)
        except OSError as error:
            raise _cannot_make(path, error) from error
        return folder

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """Take an existing run folder.

        Raises: InputError if it is none.
        """
        folder = cls(path.absolute())
        if not folder.manifest_path.is_file() or not folder.raw.is_dir():
            kind = "has no manifest.json and raw records" if path.is_dir() else "is not a folder"
            raise InputError(
                where=str(path), problem=kind, remedy="give the folder of an hconf run, such as runs/latest"
            )
        return folder

    def read_manifest(self) -> dict[str, Any]:
        """Return manifest.json.

        Raises: InputError if it is damaged, or of a version that this hconf does not know.
        """
        manifest = self._decode_manifest(dict[str, Any])
        version = manifest.get("schema_version")
        if version != SCHEMA_VERSION:
            raise InputError(
                where=str(self.manifest_path),
                problem=f"schema_version is {version}, this hconf reads {SCHEMA_VERSION}",
                remedy="use the hconf that made the run",
            )
        self._decode_manifest(_ManifestShape)
        return manifest

    def _decode_manifest(self, type_: type[T]) -> T:
        try:
            return msgspec.json.decode(self.manifest_path.read_bytes(), type=type_)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            raise InputError(
                where=str(self.manifest_path), problem=f"is damaged: {error}", remedy="give the folder of another run"
            ) from error

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        """Write manifest.json whole or not at all, and through to the disk."""
        write_whole(self.manifest_path, msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")

    def hand_over(self) -> None:
        """Give the folder to whoever called sudo, so that they can make reports and remove it without."""
        try:
            uid, gid = int(os.environ["SUDO_UID"]), int(os.environ["SUDO_GID"])
        except (KeyError, ValueError):
            return
        if os.geteuid() != 0:
            return
        for parent, _, names in os.walk(self.path):
            for path in (parent, *(os.path.join(parent, name) for name in names)):  # noqa: PTH118  # many, and quick
                os.chown(path, uid, gid, follow_symlinks=False)


def default_path(name: str, now: datetime) -> Path:
    """Return where the run folder of the experiment *name* is made, unless the user says otherwise."""
    return RUNS_DIR / f"{name}-{now.astimezone(UTC):%Y%m%dT%H%M%SZ}"


def point_latest(name: str) -> None:
    """Have ``runs/latest`` point at the run folder *name*. Raises: OSError."""
    _point(RUNS_DIR / "latest", name)


def check_can_create(path: Path, *, given: bool) -> None:
    """Refuse a run folder that exists already or cannot be made; creates nothing.

    Args:
        path: the folder.
        given: whether the user named it, for the message.

    Raises: InputError.
    """
    where = "--out" if given else "run folder"
    try:
        path.lstat()
        exists = True
    except (FileNotFoundError, NotADirectoryError):
        exists = False
    except (OSError, ValueError) as error:  # too long, not ours to look at, or with a NUL in it
        problem = f"{str(path)!r} cannot be made: {error}"
        raise InputError(where=where, problem=problem, remedy="choose another place") from error
    if exists:
        raise InputError(
            where=where,
            problem=f"{path} exists already",
            remedy="name a folder that does not exist, or move that one away",
        )
    parent = next(parent for parent in path.absolute().parents if parent.exists())
    if not (parent.is_dir() and os.access(parent, os.W_OK | os.X_OK)):
        raise InputError(
            where=where,
            problem=f"{path} cannot be made: {parent} is no folder that you can write to",
            remedy="choose a place that you can write to",
        )


def has_twin(manifest: Mapping[str, Any]) -> bool:
    """Tell whether a run was to have a simulated twin."""
    return bool(manifest.get(TWIN))


def write_whole(path: Path, content: bytes) -> None:
    """Replace a file so that a reader, or a crash, finds the old content or the new, never a part."""
    beside = path.with_name(f".{path.name}.new")
    try:
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise


def _point(link: Path, target: str) -> None:
    beside = link.with_name(f".{link.name}.new")
    beside.unlink(missing_ok=True)
    beside.symlink_to(target, target_is_directory=True)
    beside.replace(link)


def _cannot_make(path: Path, error: OSError) -> InputError:
    return InputError(
        where="run folder",
        problem=f"{path} cannot be made: {error.strerror}",
        remedy="choose a place that you can write to",
    )

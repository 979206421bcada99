"""The folder that a virtual machine's files are in while it runs; one that a killed hconf left goes when the next one starts."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from topologies.errors import CapabilityError

_PREFIX: Final = "hconf-vm-"
#: In each folder; whoever made it holds a lock on it (flock(2)), which ends with that process, however it ends.
_LOCK: Final = "lock"


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """Make a folder below TMPDIR, and remove it in the end. Raises: CapabilityError if it cannot be made."""
    remove_abandoned(Path(tempfile.gettempdir()))
    with contextlib.ExitStack() as stack:
        with room_needed():
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=_PREFIX)))
            new = folder / f"{_LOCK}.new"
            lock = stack.enter_context(new.open("wb"))
            fcntl.flock(lock, fcntl.LOCK_EX)
            new.rename(folder / _LOCK)  # under that name it is locked from the beginning
        yield folder


@contextlib.contextmanager
def room_needed() -> Iterator[None]:
    """Say what mends it where the block cannot write. Raises: CapabilityError instead of OSError."""
    try:
        yield
    except OSError as error:
        raise CapabilityError(
            where=str(error.filename or tempfile.gettempdir()),
            problem=f"cannot be written, which the files of the virtual machine take: {error.strerror}",
            remedy="make room there, or set TMPDIR to a folder on another disk",
        ) from error


def remove_abandoned(below: Path) -> None:
    """Remove the folders of this user that nobody holds any more."""
    for folder in below.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            if folder.stat().st_uid != os.geteuid():
                continue
            with (folder / _LOCK).open("rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)

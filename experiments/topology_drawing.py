"""The picture of a network as a file: what `hconf topo show --out` writes. A report shows the same one."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Final

import matplotlib as mpl

from experiments.report.canvas import plotting
from experiments.report.network_picture import network_figure
from topologies.errors import InputError
from topologies.model import Topology

FORMATS: Final = ("png", "svg", "pdf")


def write_drawing(topology: Topology, path: Path) -> None:
    """Write a picture of *topology* to *path*, whose name says the format.

    Raises: InputError for another format, or where it cannot be written.
    """
    form = check_format(path)
    try:
        path.write_bytes(drawing(topology, form))
    except OSError as error:
        raise InputError(
            where=f"--out {path}", problem=f"it cannot be written: {error.strerror}", remedy="name another file"
        ) from error


def check_format(path: Path) -> str:
    """Return the format that the name of *path* asks for. Raises: InputError."""
    form = path.suffix.removeprefix(".").casefold()
    if form not in FORMATS:
        raise InputError(
            where=f"--out {path}",
            problem=f"`{path.suffix}` is no format for pictures" if path.suffix else "its name says no format",
            remedy=f"end it with {', '.join(f'.{known}' for known in FORMATS)}",
        )
    return form


def drawing(topology: Topology, form: str) -> bytes:
    """Return the picture as a file in the format *form*; the same topology gives the same bytes."""
    metadata: dict[str, str | None] = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}[form]  # type: ignore[assignment]
    buffer = BytesIO()
    with plotting(), mpl.rc_context({"svg.hashsalt": "hconf"}):
        figure = network_figure(topology)
        figure.savefig(buffer, format=form, dpi=150, metadata=metadata, bbox_inches="tight", pad_inches=0.15)
    return buffer.getvalue()

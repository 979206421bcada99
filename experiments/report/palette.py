"""The colours of plots and pages: told apart with any kind of colour vision, on white, on black and on paper.

Source of the series: M. Okabe and K. Ito, "Color Universal Design", 2008. In the dark each keeps its hue and gets lighter where it
would not stand out. A plot is drawn in the light colours; in a page each becomes a CSS variable (`themed`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Colour:
    """One colour of the palette, as ``#rrggbb``: every light one is unique, so that it can be found again in a plot."""

    name: str
    light: str
    dark: str


INK: Final = Colour("ink", "#1b1f24", "#e8eaed")
MUTED: Final = Colour("muted", "#5b6470", "#a3acb8")
RULE: Final = Colour("rule", "#d5d9de", "#3a424d")
PAPER: Final = Colour("paper", "#fefefe", "#14181d")
SHADE: Final = Colour("shade", "#f3e3cf", "#4a3a22")

BLUE: Final = Colour("blue", "#0072b2", "#4fb3e8")
VERMILLION: Final = Colour("vermillion", "#d55e00", "#ff8a3d")
GREEN: Final = Colour("green", "#009e73", "#2fd1a2")
PURPLE: Final = Colour("purple", "#b0568c", "#e39bc6")
ORANGE: Final = Colour("orange", "#b87b00", "#f0b93a")
SKY: Final = Colour("sky", "#3d8fbf", "#8fd0f5")

#: For series, in the order in which they are taken.
SERIES: Final = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, INK)
ALL: Final = (INK, MUTED, RULE, PAPER, SHADE, *SERIES[:-1])

#: Of nodes, in every plot.
ROLE_COLOURS: Final[Mapping[str, Colour]] = {
    "core": MUTED, "csr": BLUE, "ue": GREEN, "proxy-ue": PURPLE, "login": ORANGE,
}  # fmt: skip

#: What the lines of the series are besides their colour, so that they are told apart in grey.
DASHES: Final = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (1, 1)))

_BY_LIGHT: Final = {colour.light: colour.name for colour in ALL}
_FONT: Final = re.compile(r"font: ((?:[a-z0-9]+ )*)([0-9.]+px) [^;\"]*")


def css_variables(*, dark: bool) -> str:
    """Return the palette as CSS declarations."""
    return " ".join(f"--{colour.name}: {colour.dark if dark else colour.light};" for colour in ALL)


def themed(svg: str) -> str:
    """Return the ``<svg>`` element of a plot with its colours as CSS variables and the font of the page around it.

    >>> themed('<?xml version="1.0"?><svg width="1"><path style="fill: #0072b2"/></svg>')
    '<svg width="1"><path style="fill: var(--blue)"/></svg>'
    """
    element = svg[svg.index("<svg") :]
    element = re.sub(
        r"<(metadata|style)\b.*?</\1>", "", element, flags=re.DOTALL
    )  # a style would hold for the whole page
    element = re.sub(r'<g id="[^"]*"', "<g", element)  # nothing refers to a group, and each plot has a `patch_1`
    element = re.sub(
        r"#[0-9a-f]{6}", lambda hit: f"var(--{_BY_LIGHT[hit[0]]})" if hit[0] in _BY_LIGHT else hit[0], element
    )
    return _FONT.sub(r"font: \1\2 var(--font)", element)

"""One self-contained HTML file: no network, no scripts, no fonts of its own; light, dark and on paper."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Final

from experiments.report.palette import css_variables, themed

#: What a cell may hold; a number is set right, NaN and None are a dash.
Cell = str | int | float | bool | None

_STYLE: Final = """
:root { color-scheme: light dark; --font: system-ui, "Segoe UI", Roboto, "Noto Sans", "Liberation Sans", sans-serif; LIGHT
  --good: #00734f; --bad: #b3261e; --warn: #8a5a00; --bad-back: #fdecea; --good-back: #e7f5ef; --warn-back: #fff4de; }
@media (prefers-color-scheme: dark) { :root { DARK
  --good: #4bd6a5; --bad: #ff8f86; --warn: #f2c14e; --bad-back: #3c1a18; --good-back: #12302a; --warn-back: #37290c; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem clamp(1rem, 3vw, 2.5rem) 4rem; max-width: 92rem; font: 15px/1.5 var(--font);
  color: var(--ink); background: var(--paper); }
h1 { font-size: 1.6rem; margin: 0 0 .2rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.4rem 0 .6rem; padding-top: .8rem; border-top: 1px solid var(--rule); }
p { margin: .4rem 0; max-width: 62rem; } .note { color: var(--muted); font-size: .9rem; }
.verdict { border-left: 6px solid var(--muted); padding: .7rem 1rem; margin: .8rem 0; }
.verdict strong { font-size: 1.25rem; text-transform: uppercase; letter-spacing: .03em; }
.verdict.pass { border-color: var(--good); background: var(--good-back); } .verdict.pass strong, td.pass { color: var(--good); }
.verdict.fail { border-color: var(--bad); background: var(--bad-back); } .verdict.fail strong, td.fail { color: var(--bad); font-weight: 600; }
.verdict.warn { border-color: var(--warn); background: var(--warn-back); } .verdict.warn strong, td.inconclusive { color: var(--warn); }
figure { margin: 0; min-width: 0; flex: 1 1 44rem; max-width: 60rem; } figure svg { width: 100%; height: auto; max-height: 80vh; display: block; }
figure svg * { stroke-linejoin: round; stroke-linecap: butt; }
.beside { display: flex; flex-wrap: wrap; gap: 1rem 2rem; align-items: flex-start; }
.tables { flex: 1 1 auto; max-width: 100%; overflow-x: auto; }
table { border-collapse: collapse; font-size: .86rem; margin: .3rem 0 1rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--muted); padding: .2rem 0; }
th, td { padding: .18rem .6rem .18rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--rule); }
th { font-weight: 600; white-space: nowrap; } td.number, th.number { text-align: right; white-space: nowrap; }
td.text { overflow-wrap: anywhere; min-width: 7rem; max-width: 26rem; } td.text:first-child { overflow-wrap: break-word; }
code { font: .92em ui-monospace, "DejaVu Sans Mono", monospace; overflow-wrap: anywhere; }
@media print { @page { margin: 14mm; } :root { color-scheme: light; LIGHT
    --good: #00734f; --bad: #b3261e; --warn: #8a5a00; --bad-back: #fff; --good-back: #fff; --warn-back: #fff; }
  body { padding: 0; max-width: none; font-size: 10pt; background: #fff; } h2 { break-after: avoid; } .beside { display: block; }
  figure, table, tr, .verdict { break-inside: avoid; } thead { display: table-header-group; } .tables { overflow: visible; }
  figure svg { max-height: 12cm; } }
"""


@dataclass(frozen=True, slots=True)
class HtmlTable:
    """A table; *verdict_column* is coloured by what it says."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""
    verdict_column: int | None = None
    rows_max: int = 60  #: of more, the first are shown, and how many there are


@dataclass(frozen=True, slots=True)
class Section:
    """A heading, and under it a plot beside its tables."""

    title: str
    svg: str = ""  #: as matplotlib wrote it
    description: str = ""  #: of the plot, for those who do not see it
    tables: Sequence[HtmlTable] = ()
    notes: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Banner:
    kind: str  #: "pass", "fail" or "warn"
    headline: str
    text: str = ""
    table: HtmlTable | None = None


@dataclass(frozen=True, slots=True)
class Page:
    title: str
    subtitle: str = ""
    banners: Sequence[Banner] = ()
    sections: Sequence[Section] = field(default_factory=tuple)

    def html(self) -> str:
        """Return the whole file."""
        style = _STYLE.replace("LIGHT", css_variables(dark=False)).replace("DARK", css_variables(dark=True))
        parts = [
            "<!DOCTYPE html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(self.title)}</title><style>{style}</style></head><body>",
            f"<h1>{escape(self.title)}</h1>",
            f'<p class="note">{escape(self.subtitle)}</p>' if self.subtitle else "",
            *(_banner(banner) for banner in self.banners),
            *(_section(section) for section in self.sections),
            "</body></html>\n",
        ]
        return "\n".join(part for part in parts if part)


def spell_number(value: float) -> str:
    """Return a number with as many digits as one reads.

    >>> [spell_number(value) for value in (1234567, 0.123456, 12.3456, 1e-7, float("nan"))]
    ['1,234,567', '0.123', '12.3', '1e-07', '-']
    """
    if math.isnan(value):
        return "-"
    if value == round(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:.1f}" if 10 <= abs(value) < 1000 else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _banner(banner: Banner) -> str:
    text = f"<p>{escape(banner.text)}</p>" if banner.text else ""
    table = _table(banner.table) if banner.table else ""
    return f'<div class="verdict {banner.kind}"><strong>{escape(banner.headline)}</strong>{text}{table}</div>'


def _section(section: Section) -> str:
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in section.notes)
    tables = "".join(map(_table, section.tables))
    if section.svg:
        label = escape(section.description or section.title, quote=True)
        plot = themed(section.svg).replace("<svg", f'<svg role="img" aria-label="{label}"', 1)
        body = f'<div class="beside"><figure>{plot}</figure><div class="tables">{tables}</div></div>'
    else:
        body = f'<div class="tables">{tables}</div>' if tables else ""
    return f"<section><h2>{escape(section.title)}</h2>{body}{notes}</section>"


def _table(table: HtmlTable) -> str:
    numeric = [
        any(_is_number(row[index]) for row in table.rows) and all(_fits_number(row[index]) for row in table.rows)
        for index in range(len(table.columns))
    ]
    head = "".join(
        f'<th scope="col"{_NUMBER if is_number else ""}>{escape(name)}</th>'
        for name, is_number in zip(table.columns, numeric, strict=True)
    )
    body = "".join(
        f"<tr>{''.join(_cells(row, numeric, table.verdict_column))}</tr>" for row in table.rows[: table.rows_max]
    )
    more = len(table.rows) - table.rows_max
    caption = table.caption + (f" (the first {table.rows_max} of {len(table.rows)})" if more > 0 else "")
    return (
        "<table>"
        + (f"<caption>{escape(caption)}</caption>" if caption else "")
        + f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    )


_NUMBER: Final = ' class="number"'


def _cells(row: Sequence[Cell], numeric: Sequence[bool], verdict_column: int | None) -> Iterable[str]:
    for index, cell in enumerate(row):
        if index == verdict_column:
            yield f'<td class="{escape(str(cell), quote=True)}">{escape(str(cell))}</td>'
        elif numeric[index]:
            yield f"<td{_NUMBER}>{_spell(cell)}</td>"
        else:
            yield f'<td class="text">{escape(_spell(cell))}</td>'


def _is_number(cell: Cell) -> bool:
    return isinstance(cell, int | float) and not isinstance(cell, bool)


def _fits_number(cell: Cell) -> bool:
    return cell is None or _is_number(cell)


def _spell(cell: Cell) -> str:
    if cell is None:
        return "-"
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    return cell if isinstance(cell, str) else spell_number(cell)

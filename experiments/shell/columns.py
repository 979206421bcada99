"""Rows as plain text in columns: narrow enough for a terminal, wide enough for its content."""

from __future__ import annotations

from collections.abc import Sequence


def in_columns(head: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """Return the lines of a table; numbers stand to the right.

    >>> in_columns(["node", "packets"], [["csr1", 5], ["login", 120]])
    ['node   packets', 'csr1         5', 'login      120']
    """
    table = [list(head), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in table) for column in range(len(head))]
    right = [
        bool(rows) and all(isinstance(row[column], int | float) or row[column] in ("-", "") for row in rows)
        for column in range(len(head))
    ]
    return [
        "  ".join(
            cell.rjust(width) if is_right else cell.ljust(width)
            for cell, width, is_right in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in table
    ]

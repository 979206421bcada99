"""The tutorial, docs/tutorial.md, as a program: its files, commands and snippets in order, and what they are said to print.

``python -m tests.tutorial`` runs all of it that takes no root and writes anew what is printed; read the prose again afterwards.
"""

from __future__ import annotations

import math
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
TUTORIAL: Final = ROOT / "docs" / "tutorial.md"
#: By how much a number may differ from the one in the text; as the page says.
TOLERANCE_RATIO: Final = 0.15
_BLOCK: Final = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NUMBER: Final = re.compile(r"-?\d+(?:\.\d+)?")


@dataclass(frozen=True, slots=True)
class Section:
    title: str
    text: str
    blocks: Sequence[tuple[str, str]]  #: (language, content)

    @property
    def takes_root(self) -> bool:
        return any(language == "sh" and "sudo " in content for language, content in self.blocks)


def sections() -> list[Section]:
    """Return the sections of the page that have blocks."""
    parts = re.split(r"^## ", TUTORIAL.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    found = [Section(part.partition("\n")[0], part, _BLOCK.findall(part)) for part in parts]
    return [section for section in found if section.blocks]


def run_section(section: Section, folder: Path) -> Iterator[tuple[str, str]]:
    """Write its files into *folder*, and run its commands and snippets there; yield (what is said to be printed, what is)."""
    printed = ""
    for language, content in section.blocks:
        match language:
            case "toml":
                (folder / content.partition("\n")[0].removeprefix("# ")).write_text(content, encoding="utf-8")
            case "sh":
                printed = "".join(_run(_command(line), folder, section) for line in content.splitlines())
            case "python":
                printed = _run([sys.executable, "-c", content], folder, section)
            case "text":
                yield content, printed
            case _:
                raise AssertionError(f"{section.title}: nobody knows how to run {language}")


def _command(line: str) -> list[str]:
    words = shlex.split(line.removeprefix("sudo "))
    assert words[0] == "./hconf", line
    return [sys.executable, "-m", "experiments.cli", *words[1:]]


def _run(command: Sequence[str], folder: Path, section: Section) -> str:
    done = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{section.title}: {' '.join(command[1:])}\n{done.stdout}{done.stderr}"
    return done.stdout


def differences(expected: str, printed: str) -> list[str]:
    """Return what is not as the page says: words have to be the same, numbers near enough, blanks do not count."""
    words, numbers = _taken_apart(expected)
    printed_words, printed_numbers = _taken_apart(printed)
    if words != printed_words:
        return [f"not printed: {' '.join(words)}\nbut: {' '.join(printed_words)}"]
    return [
        f"{first:g}: {second:g}"
        for first, second in zip(numbers, printed_numbers, strict=True)
        if not is_near(first, second)
    ]


def _taken_apart(text: str) -> tuple[list[str], list[float]]:
    return _NUMBER.sub(" # ", text).split(), [float(number) for number in _NUMBER.findall(text)]


def is_near(first: float, second: float) -> bool:
    """Tell whether two numbers are the same, as far as the page promises."""
    return math.isclose(first, second, rel_tol=TOLERANCE_RATIO, abs_tol=0.02)


def rewrite() -> None:
    """Write anew what the page says is printed."""
    page = TUTORIAL.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        for section in sections():
            text = section.text
            if not section.takes_root:
                for said, printed in run_section(section, Path(folder)):
                    lines = "".join(f"{line.rstrip()}\n" for line in printed.splitlines())
                    text = text.replace(f"```text\n{said}```", f"```text\n{lines}```", 1)
            page = page.replace(section.text, text)
    TUTORIAL.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    rewrite()

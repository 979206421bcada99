"""What the tutorial does on real hosts, done. Whether the twin agrees depends on how busy the machine is; that it is said does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tutorial import run_section, sections


def test_the_sections_that_take_root_run_as_they_are_written(tmp_path: Path) -> None:
    with_files = [section for section in sections() if any(language == "toml" for language, _ in section.blocks)]
    for section in with_files:
        for language, content in section.blocks:
            if language == "toml":
                (tmp_path / content.partition("\n")[0].removeprefix("# ")).write_text(content, encoding="utf-8")
    try:
        for section in sections():
            if section.takes_root:
                assert list(run_section(section, tmp_path)) == []  # what they print is the machine's
    except AssertionError as error:
        if "fidelity.twin" not in str(error):
            raise
        pytest.skip("the machine is too busy for a faithful run, and hconf says so")
    assert (tmp_path / "runs" / "both" / "twin" / "report.html").is_file()

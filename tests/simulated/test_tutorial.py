"""What the tutorial says can be done without root, done; that it prints what the page says; and that the page is whole."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.tutorial import ROOT, TUTORIAL, differences, run_section, sections


@pytest.mark.timeout(300)  # some 30 s; on a busy machine, longer
def test_everything_that_takes_no_root_prints_what_the_page_says(tmp_path: Path) -> None:
    wrong: list[str] = []
    for section in sections():
        if not section.takes_root:
            for expected, printed in run_section(section, tmp_path):
                wrong += [f"{section.title}: {difference}" for difference in differences(expected, printed)]
    assert not wrong, "\n".join([*wrong, "python -m tests.tutorial writes it anew"])
    assert (tmp_path / "abilene.png").read_bytes()[:4] == b"\x89PNG"
    assert (tmp_path / "runs" / "modes" / "report.html").is_file()


@pytest.mark.parametrize(
    ("expected", "printed", "count"),
    [
        ("a  1.0 b\n", "a 1.1   b\n", 0),
        ("a 1.0 b", "a 1.3 b", 1),
        ("a 1.0 b 2", "a 9 b 9", 2),
        ("a 1.0 b", "a 1.0 c", 1),
        ("ms [-90, 27]", "ms [90, 27]", 1),
        ("a 1 b", "a 1 b 2", 1),
        ("0", "0.01", 0),
    ],
)
def test_what_counts_as_printed(expected: str, printed: str, count: int) -> None:
    assert len(differences(expected, printed)) == count


def test_its_links_lead_somewhere_and_the_readme_leads_to_it() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", TUTORIAL.read_text(encoding="utf-8")):
        assert (TUTORIAL.parent / target).is_file(), target
    assert "(docs/tutorial.md)" in (ROOT / "README.md").read_text(encoding="utf-8")

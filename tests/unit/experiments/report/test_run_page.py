from __future__ import annotations

import html.parser
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from experiments.analysis import analyse
from experiments.report.run_page import PAGE_FILE, write_page
from experiments.run_folder import RunFolder
from topologies.errors import InputError

WriteRun = Callable[..., RunFolder]
MANIFEST: dict[str, Any] = {
    "verdict": "pass",
    "mode": "emulated",
    "seed": 7,
    "kernel": "Linux 6",
    "start": "2026-01-01",
}


class Reader(html.parser.HTMLParser):
    """Checks that what is opened is closed, and collects texts, tags and what would be loaded from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []
        self.tags: list[str] = []
        self.loaded: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in {"meta", "use", "path", "br"}:
            self.open.append(tag)
        for name, value in attrs:
            if name in {"src", "href", "xlink:href"} and not (value or "").startswith(("#", "data:")):
                self.loaded.append(str(value))
            if name == "id":
                self.ids.append(str(value))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in {"meta", "use", "path", "br"}:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in {"meta", "use", "path", "br"}:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def page_of(folder: RunFolder, **manifest: Any) -> Reader:
    written = folder.read_manifest()
    path = write_page(folder, analyse(folder), written | MANIFEST | manifest)
    reader = Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    assert reader.open == []
    return reader


def test_the_page_has_a_plot_and_a_table_of_everything_and_loads_nothing(write_run: WriteRun) -> None:
    folder = write_run()
    page = page_of(folder)
    assert page.loaded == []
    assert "script" not in page.tags
    titles = ["Network", "Latency against the path delay", "Deliveries over time", "Outage of each fault"]
    titles += ["Messages per update and link", "CPU"]
    assert list(dict.fromkeys(text for text in page.texts if text in titles)) == titles
    assert page.tags.count("svg") == len(titles)
    assert page.tags.count("table") >= len(titles)
    assert len(set(page.ids)) == len(page.ids), "what two plots name alike would take the other's clip paths"
    drawn = {path.name for path in (folder.path / "plots").iterdir()}
    names = ("topology", "latency", "timeline", "outage", "messages", "cpu")
    assert drawn == {f"{name}.{kind}" for name in names for kind in ("svg", "png")}
    assert all((folder.path / "plots" / f"{name}.png").read_bytes().startswith(b"\x89PNG") for name in names)


def test_failed_fidelity_stands_before_the_verdict_and_that_before_any_figure(write_run: WriteRun) -> None:
    texts = page_of(write_run(manifest={"cpu_busy_ratio": 0.97}), verdict="fail").texts
    places = [texts.index(text) for text in ("Fidelity failed", "fidelity.cpu", "fail", "Summary")]
    assert places == sorted(places)


def test_the_figures_of_the_page_are_those_of_the_records(write_run: WriteRun) -> None:
    """Of 12 deliveries of the fixture, 5 within the fault; the worst took 415 ms; ue1 was cut off for 400 ms."""
    texts = " | ".join(page_of(write_run()).texts)
    assert re.search(r"latency, during faults \| ms \| 8 \|", texts)
    assert re.search(r"latency, all \| ms \| 12 \|[^a-z]*415", texts)
    assert "f1 link-down csr1-csr2" in texts


def test_colours_follow_the_reader_s_theme(write_run: WriteRun) -> None:
    folder = write_run()
    page_of(folder)
    text = (folder.path / PAGE_FILE).read_text(encoding="utf-8")
    style, body = text.split("</style>")
    assert "prefers-color-scheme: dark" in style
    assert "@media print" in style
    assert "var(--blue)" in body
    assert not re.findall(r"(?:fill|stroke): #(?!000000|ffffff)[0-9a-f]{6}", body), "a colour that no theme changes"


def test_the_page_of_the_same_simulated_run_is_the_same_bytes(write_run: WriteRun) -> None:
    folder = write_run()
    pages = []
    for start in ("2026-01-01", "2026-01-02"):
        page_of(folder, mode="simulated", start=start, kernel=start)
        pages.append({path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()})
    assert pages[0] == pages[1]
    assert "Computing takes no time" in (folder.path / PAGE_FILE).read_text(encoding="utf-8")


def test_a_run_without_deliveries_has_a_page_all_the_same(write_run: WriteRun) -> None:
    texts = page_of(write_run(traffic=(), faults=()), verdict="running").texts
    assert "unfinished" in texts
    assert any("killed" in text for text in texts)
    assert any("nothing was delivered" in text for text in texts)


def test_names_are_text_and_not_markup(write_run: WriteRun) -> None:
    page = page_of(
        write_run(), verdict="fail", problem="<b>no</b> & never", experiment={"experiment": {"name": "a<i>b$x$"}}
    )
    assert "<b>no</b> & never" in page.texts
    assert "a<i>b$x$" in page.texts


def test_what_was_not_analysed_has_the_verdict_and_the_problem(write_run: WriteRun) -> None:
    folder = write_run()
    path = write_page(folder, None, MANIFEST | {"verdict": "error", "problem": "the zygote did not start"})
    text = path.read_text(encoding="utf-8")
    assert "the zygote did not start" in text
    assert "<svg" not in text


def test_a_csv_file_that_is_none_is_named(write_run: WriteRun) -> None:
    folder = write_run()
    analysis = analyse(folder)
    (folder.path / "recovery.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"recovery\.csv: line 1 has no column `fault_id`"):
        write_page(folder, analysis, MANIFEST)
    (folder.path / "deliveries.csv").write_bytes(b"\xff\xfe,\x00\n")
    (folder.path / "recovery.csv").unlink()
    with pytest.raises(InputError, match=r"(recovery|deliveries)\.csv: cannot be read"):
        write_page(folder, analysis, MANIFEST)


def test_a_folder_that_cannot_be_written_to_is_named(write_run: WriteRun) -> None:
    folder = write_run()
    analysis = analyse(folder)
    (folder.path / "plots").write_text("a file is in the way", encoding="utf-8")
    with pytest.raises(InputError, match=r"plots.*cannot be written"):
        write_page(folder, analysis, MANIFEST)


def test_the_report_package_loads_neither_pandas_nor_matplotlib_by_itself() -> None:
    import subprocess  # noqa: PLC0415

    code = (
        "import sys, experiments.report, experiments.runner; print(sorted({'pandas', 'matplotlib'} & set(sys.modules)))"
    )
    root = Path(__file__).resolve().parents[4]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"

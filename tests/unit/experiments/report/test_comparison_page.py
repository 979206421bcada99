from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments import cli
from experiments.analysis.results import load_result
from experiments.columns import COMPARISON
from experiments.report import comparison_page
from experiments.run_folder import RunFolder

WriteRun = Callable[..., RunFolder]


@pytest.fixture
def hconf(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., Any]:
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["hconf", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        written = capsys.readouterr()
        assert "Traceback" not in written.err + written.out
        return int(ended.value.code or 0), written.out, written.err

    return call


def two_modes(write_run: WriteRun, seeds: Sequence[int] = (1, 2)) -> list[Path]:
    paths = []
    for mode, slower in (("hybrid", 0.0), ("svs", 20.0)):
        for seed in seeds:
            traffic = [("ue1", 1, 1.0, {"ue2": 4.0 + slower + seed / 10, "ue3": 9.0 + slower + seed})]
            experiment = {"conference": {"mode": mode}, "experiment": {"name": "ab", "seed": seed}}
            folder = write_run(
                traffic=traffic, faults=(), manifest={"experiment": experiment, "seed": seed, "verdict": "pass"}
            )
            paths.append(folder.path)
    return paths


def test_several_runs_are_compared(hconf: Callable[..., Any], write_run: WriteRun, tmp_path: Path) -> None:
    code, out, err = hconf("report", *two_modes(write_run), "--out", "both")
    assert code == 0, err
    assert "svs" in out
    assert "mode=" not in out, "the key of the settings stands in the heading, the last part of it"
    assert "Of fewer than 6 runs an interval is narrower than it says" in " ".join(out.split())
    with (tmp_path / "both" / "comparison.csv").open(encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    assert list(rows[0]) == COMPARISON.names
    row = next(
        row for row in rows if row["group"] == "conference.mode=svs" and row["metric"] == "deliveries.latency_ms.max"
    )
    # seeds 1 and 2: 10 and 11 ms against 30 and 31 ms
    assert (row["median_value"], row["difference_value"], row["runs"], row["pairs"]) == ("30.5", "20.0", "2", "2")
    assert float(row["reference_ratio"]) == pytest.approx((30 / 10 + 31 / 11) / 2, abs=1e-5)
    page = (tmp_path / "both" / "report.html").read_text(encoding="utf-8")
    assert "Differences, paired by seed" in page
    assert "Fidelity failed" not in page
    assert "pairing takes out little" not in page
    assert "<caption>conference.mode</caption>" in page
    assert '<th scope="col">svs (n=2)</th>' in page
    assert '<th scope="col">svs (pairs=2)</th>' in page
    assert sorted(path.name for path in (tmp_path / "both" / "plots").glob("*.png")) == ["latency.png", "medians.png"]


def test_failed_fidelity_of_any_run_stands_first(
    hconf: Callable[..., Any], write_run: WriteRun, tmp_path: Path
) -> None:
    busy = write_run(
        manifest={"cpu_busy_ratio": 0.99, "verdict": "fail", "experiment": {"experiment": {"name": "busy"}}}
    )
    assert hconf("report", busy.path, *two_modes(write_run, (1,)), "--out", "both")[0] == 0
    page = (tmp_path / "both" / "report.html").read_text(encoding="utf-8")
    places = [page.index(text) for text in ("Fidelity failed", "fidelity.cpu", "Not all runs passed", "Medians")]
    assert places == sorted(places)


def test_a_run_that_is_given_twice_is_not_two(hconf: Callable[..., Any], write_run: WriteRun, tmp_path: Path) -> None:
    one, *others = two_modes(write_run)
    code, _, err = hconf("report", one, *others, tmp_path / "." / one.name, "--out", "both")
    assert (code, f"{one}: it is given twice" in err) == (2, True)
    assert not (tmp_path / "both").exists()


def test_simulated_runs_of_one_seed_are_said_to_count_twice(
    hconf: Callable[..., Any], write_run: WriteRun, tmp_path: Path
) -> None:
    paths = [write_run(manifest={"mode": "simulated", "seed": 1, "verdict": "pass"}).path for _ in range(2)]
    assert hconf("report", *paths, "--out", "both")[0] == 0
    page = (tmp_path / "both" / "report.html").read_text(encoding="utf-8")
    assert page.index("Runs that count twice") < page.index("Medians")
    assert "CPU time" not in page, "nobody has measured any"


def test_where_the_reference_has_nothing_the_difference_is_shown_and_what_was_lost_is_said(
    hconf: Callable[..., Any], write_run: WriteRun, tmp_path: Path
) -> None:
    """No outage against one: no ratio says that."""
    calm = [("ue1", 1, 1.0, {"ue2": 4.0, "ue3": 9.0}), ("ue1", 2, 6.0, {"ue2": 4.0, "ue3": 19.0})]
    late = [("ue1", 1, 1.0, {"ue2": 4.0}), ("ue1", 2, 6.0, {"ue2": 4.0, "ue3": 219.0})]
    paths = [
        write_run(
            traffic=traffic, manifest={"experiment": {"conference": {"mode": mode}}, "seed": 1, "verdict": "pass"}
        ).path
        for mode, traffic in (("push", calm), ("svs", late))
    ]
    assert hconf("report", *paths, "--out", "both")[0] == 0
    page = (tmp_path / "both" / "report.html").read_text(encoding="utf-8")
    minus, over = page.split("value minus that of the reference")[1].split("value over that of the reference")[:2]
    assert "outage, worst client (ms)" in minus
    assert "outage, worst client" not in over
    assert "conference.mode=svs: 1 of 4 expected deliveries never happened" in page


def test_without_a_seed_in_common_it_is_said_that_nothing_is_paired_and_a_killed_run_is_unfinished(
    hconf: Callable[..., Any], write_run: WriteRun, tmp_path: Path
) -> None:
    paths = [
        write_run(quiesced_s=None, manifest={"experiment": {"conference": {"mode": mode}}, "seed": seed}).path
        for seed, mode in enumerate(("push", "svs"))
    ]
    assert hconf("report", *paths, "--out", "both")[0] == 0
    page = (tmp_path / "both" / "report.html").read_text(encoding="utf-8")
    assert "nothing can be paired" in page
    assert "value minus that of the reference" not in page
    assert page.count('<td class="unfinished">unfinished</td>') == 4


def test_one_seed_and_two_workloads_are_not_one_schedule(
    hconf: Callable[..., Any], write_run: WriteRun, tmp_path: Path
) -> None:
    paths = [
        write_run(manifest={"experiment": {"workload": [{"rate_per_s": rate}]}, "seed": 1, "verdict": "pass"}).path
        for rate in (1.0, 2.0)
    ]
    assert hconf("report", *paths, "--out", "both")[0] == 0
    page = (tmp_path / "both" / "report.html").read_text(encoding="utf-8")
    assert "The groups differ in workload.1.rate_per_s, so who publishes" in page


def test_of_runs_of_different_size_the_same_share_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the deliveries of the small one would count for more than those of the large one."""
    monkeypatch.setattr(comparison_page, "_DRAWN_MAX", 100)
    large, small = np.arange(900, dtype=np.float32), np.arange(5_000, 5_100, dtype=np.float32)
    drawn = comparison_page._drawn([large, small])
    assert [len(part) for part in drawn] == [180, 20]
    assert [(part[0], part[-1]) for part in drawn] == [(0, 899), (5_000, 5_099)]
    assert [len(part) for part in comparison_page._drawn([large[:90], small])] == [90, 100]


def test_a_folder_that_is_none_is_named_before_anything_is_written(
    hconf: Callable[..., Any], write_run: WriteRun, tmp_path: Path
) -> None:
    good = write_run()
    before = {path: path.stat().st_mtime_ns for path in good.path.rglob("*")}
    foreign = tmp_path / "thesis"
    foreign.mkdir()
    (foreign / "a.tex").write_text("")
    code, _, err = hconf("report", good.path, foreign)
    assert code == 2
    assert f"{foreign}: has no manifest.json" in err
    torn = write_run()
    torn.manifest_path.write_bytes(torn.manifest_path.read_bytes()[:100])
    code, _, err = hconf("report", good.path, torn.path)
    assert (code, "manifest.json: is damaged" in err) == (2, True)
    assert {path: path.stat().st_mtime_ns for path in good.path.rglob("*")} == before
    assert not list(tmp_path.glob("**/comparison*"))


def test_what_a_killed_run_left_is_reported_with_the_torn_line(hconf: Callable[..., Any], write_run: WriteRun) -> None:
    folder = write_run(quiesced_s=None)
    records = folder.raw / "ue3.forwarder.jsonl"
    records.write_bytes(records.read_bytes()[:-20])
    code, out, _ = hconf("report", folder.path)
    assert code == 0
    assert "unfinished" in out
    page = (folder.path / "report.html").read_text(encoding="utf-8")
    assert "ue3.forwarder.jsonl:" in page
    assert "killed" in page


def test_a_run_that_passed_and_lost_records_since_is_not_reported_as_passed(
    hconf: Callable[..., Any], write_run: WriteRun
) -> None:
    folder = write_run()
    manifest = folder.read_manifest()
    folder.write_manifest({**manifest, "verdict": "pass"})
    (folder.raw / "ue3.forwarder.jsonl").write_bytes(b"")
    code, out, _ = hconf("report", folder.path)
    assert code == 0
    assert "fail (it ended with pass" in out
    page = (folder.path / "report.html").read_text(encoding="utf-8")
    assert 'class="verdict fail"' in page
    assert 'class="verdict pass"' not in page
    assert load_result(folder).verdict == "fail"


def test_one_run_has_nothing_to_be_compared_with(hconf: Callable[..., Any], write_run: WriteRun) -> None:
    code, _, err = hconf("report", write_run().path, "--out", "x")
    assert (code, "one run is not compared" in err) == (2, True)


def test_columns_are_printed_as_the_reference_page_has_them(hconf: Callable[..., Any]) -> None:
    code, out, _ = hconf("report", "--columns")
    assert code == 0
    assert out == (Path(cli.__file__).parent / "COLUMNS.md").read_text(encoding="utf-8")

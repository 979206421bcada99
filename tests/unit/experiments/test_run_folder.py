from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from experiments.run_folder import RunFolder, write_whole
from topologies.errors import InputError

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
MANIFEST = {"schema_version": 1, "experiment": {}, "clock": {}, "phases": {}}


def test_a_run_without_out_goes_to_runs_and_latest_points_at_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = RunFolder.create("quick", out=None, now=NOW)
    assert folder.path == tmp_path / "runs" / "quick-20260102T030405Z"
    assert folder.raw.is_dir()
    assert (tmp_path / "runs" / "latest").resolve() == folder.path
    later = RunFolder.create("other", out=None, now=NOW)
    assert (tmp_path / "runs" / "latest").resolve() == later.path


def test_out_is_made_with_its_parents_and_leaves_latest_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = RunFolder.create("quick", out=Path("a/b"), now=NOW)
    assert folder.path == tmp_path / "a" / "b"
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("existing", ["folder", "file", "dangling link"])
def test_a_folder_that_exists_is_refused_and_not_touched(tmp_path: Path, existing: str) -> None:
    out = tmp_path / "out"
    match existing:
        case "folder":
            out.mkdir()
        case "file":
            out.write_text("precious")
        case _:
            out.symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"--out: .*/out exists already \(fix: name a folder that does not exist"):
        RunFolder.create("quick", out=out, now=NOW)
    assert existing != "file" or out.read_text() == "precious"


def test_a_second_run_in_the_same_second_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    RunFolder.create("quick", out=None, now=NOW)
    with pytest.raises(InputError, match="exists already"):
        RunFolder.create("quick", out=None, now=NOW)


@pytest.mark.parametrize("out", ["file/inside", "/proc/no/such", "x" * 300, "nul\0byte"])
def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    with pytest.raises(InputError, match="cannot be made"):
        RunFolder.create("quick", out=Path(out), now=NOW)


def test_the_manifest_is_replaced_as_a_whole(tmp_path: Path) -> None:
    folder = RunFolder.create("quick", out=tmp_path / "out", now=NOW)
    folder.write_manifest(MANIFEST | {"verdict": "running"})
    folder.write_manifest(MANIFEST | {"verdict": "pass"})
    assert folder.read_manifest()["verdict"] == "pass"
    assert [path.name for path in folder.path.iterdir() if path.is_file()] == ["manifest.json"]


def test_a_write_that_fails_leaves_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_whole(path, b"old")
    with pytest.raises(TypeError):
        write_whole(path, "not bytes")  # type: ignore[arg-type]
    assert path.read_bytes() == b"old"

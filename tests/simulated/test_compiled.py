"""Compiled or interpreted, the protocol does the same."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from proxy import compiled

ROOT = Path(__file__).parents[2]
WHERE_IT_IS = "import proxy.core.forwarder, proxy.wire.messages; print(proxy.core.forwarder.__file__, proxy.wire.messages.__file__)"


def run_python(*arguments: str, interpreted: bool) -> str:
    environment = {name: value for name, value in os.environ.items() if name != compiled.INTERPRETED_VARIABLE}
    if interpreted:
        environment[compiled.INTERPRETED_VARIABLE] = "1"
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout


def test_what_is_not_to_be_compiled_or_is_not_yet_is_interpreted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert run_python("-c", WHERE_IT_IS, interpreted=True).split() == [
        str(ROOT / "proxy" / "core" / "forwarder.py"),
        str(ROOT / "proxy" / "wire" / "messages.py"),
    ]
    here = compiled.folder()
    source = tmp_path / "forwarder.py"
    source.write_text("changed")
    changed = compiled.sources() | {"proxy.core.forwarder": source}
    monkeypatch.setattr(compiled, "sources", lambda: changed)
    assert compiled.folder.__wrapped__() != here  # a changed source has no compiled code


@pytest.mark.parametrize("first", ["proxy", "testbed.links", "experiments.compiler"])
def test_whatever_is_imported_first(first: str) -> None:
    everything = f"import {first}, proxy.driver.program, testbed.links.frame_loop, testbed.links.model"
    finder = f"import sys; sys.path[:] = [path for path in sys.path if path not in ('', {str(ROOT)!r})]"
    assert run_python("-P", "-c", f"{finder}; {everything}", interpreted=False) == ""


@pytest.mark.skipif(not compiled.folder().is_dir(), reason="not compiled")
@pytest.mark.parametrize("mode", ["hybrid", "svs", "psync"])
def test_both_write_the_same_bytes(mode: str, tmp_path: Path) -> None:
    assert compiled.folder() in Path(run_python("-c", WHERE_IT_IS, interpreted=False).split()[0]).parents
    written: list[dict[str, bytes]] = []
    for interpreted in (False, True):
        out = tmp_path / str(interpreted)
        experiment = "experiments/proxy-crash.toml"
        settings = ["experiment.duration_s=5", "workload.1.stop_s=5", "fault.1.at_s=1.5", "fault.1.for_s=2"]
        if mode != "hybrid":
            experiment = "experiments/compare-modes.toml"
            settings = [f"conference.mode={mode}", "experiment.duration_s=2", "fault.1.at_s=1", "workload.1.stop_s=2"]
        run_python(
            *("-m", "experiments.cli", "run", experiment, "--mode", "simulated", "--out", str(out)),
            *(word for setting in settings for word in ("--set", setting)),
            interpreted=interpreted,
        )
        files = sorted(path for path in out.rglob("*") if path.is_file() and path.name != "manifest.json")
        written.append({str(path.relative_to(out)): path.read_bytes() for path in files})
    assert written[0].keys() == written[1].keys()
    assert [name for name in written[0] if written[0][name] != written[1][name]] == []

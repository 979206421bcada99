"""The command without a network: usage, bad input, exit codes, and that a message is never a traceback."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from experiments import cli
from topologies.errors import CapabilityError
from topologies.model import Topology

GOOD = """
[experiment]
name = "small"
duration_s = 2
[topology]
name = "tiers"
[[workload]]
kind = "poisson"
rate_per_s = 1.0
"""

Hconf = Callable[..., tuple[int, str, str]]


@pytest.fixture
def hconf(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Hconf:
    """Return a function that calls the command in this process, in an empty folder with good.toml in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "good.toml").write_text(GOOD)

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["hconf", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        written = capsys.readouterr()
        assert "Traceback" not in written.err + written.out
        return int(ended.value.code or 0), written.out, written.err

    return call


def nothing_was_made() -> bool:
    return sorted(path.name for path in Path().iterdir()) == ["good.toml"]


def test_the_bare_command_prints_its_help(hconf: Hconf) -> None:
    code, out, _ = hconf()
    assert code == 0
    for command in ("run", "check", "report", "topo", "doctor", "clean", "demo", "test"):
        assert command in out
    assert "130 interrupted" in out


def test_check_accepts_a_good_file_and_the_quickstart(hconf: Hconf) -> None:
    code, out, _ = hconf("check", "good.toml", "--set", "experiment.duration_s=3")
    assert code == 0
    assert out.startswith("good.toml: good. small: tiers")
    assert "3 s." in out
    assert hconf("check", str(cli.QUICKSTART))[0] == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["check", "missing.toml"], "missing.toml: there is no such file"),
        (["check", "good.toml", "--set", "experiment.duraton_s=3"], "did you mean `duration_s`"),
        (
            ["check", "good.toml", "--set", "experiment.duration_s=86400", "--set", "workload.1.rate_per_s=9000"],
            "are more than the 10000000 of one run",
        ),
        (["run", "missing.toml"], "there is no such file"),
        (["run", "good.toml", "--set", "topology.name=nowhere"], "nowhere"),
        (["run", "good.toml", "--out", "good.toml"], "--out: good.toml exists already"),
        (["run", "good.toml", "--out", "good.toml/x"], "good.toml is no folder that you can write to"),
        (["report"], "no run folder given"),
        (["report", "missing"], "missing: is not a folder"),
        (["report", "."], "has no manifest.json and raw records"),
        (["topo", "list", "atlantis"], "no name contains `atlantis`"),
        (["topo", "show", "Abilene"], "`topozoo/Abilene`?"),
        (["topo", "show", "tiers", "--set", "csrs"], "--set csrs: is no assignment"),
        (["topo", "show", "tiers", "--set", "csrz=3"], "csrz"),
    ],
)
def test_bad_input_is_answered_in_one_line_with_a_remedy(hconf: Hconf, arguments: list[str], said: str) -> None:
    code, _, err = hconf(*arguments)
    assert code == 2
    assert said in err
    assert err.startswith("hconf: ")
    assert "(fix: " in err
    assert err.count("\n") == 1
    assert nothing_was_made()


@pytest.mark.parametrize(
    "arguments",
    [
        ["fly"],
        ["run"],
        ["run", "good.toml", "--out"],
        ["run", "good.toml", "--seed", "-1"],
        ["run", "good.toml", "--seed", "many"],
        ["run", "good.toml", "--mode", "imagined"],
        ["run", "good.toml", "--speed", "3"],
        ["topo", "draw"],
        ["doctor", "everything"],
        ["doctor", "good.toml", "better.toml"],
    ],
)
def test_wrong_usage_ends_with_2(hconf: Hconf, arguments: list[str]) -> None:
    code, _, err = hconf(*arguments)
    assert code == 2
    assert err
    assert nothing_was_made()


def test_a_machine_that_cannot_is_told_what_mends_it(hconf: Hconf, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*, capture: bool, taps: bool, topology: Topology) -> None:
        problem = f"is missing, capture {capture}, taps {taps}, {len(topology.nodes)} hosts"
        raise CapabilityError(where="mnexec", problem=problem, remedy="apt-get install mininet")

    monkeypatch.setattr("testbed.doctor.require_for_run", refuse)
    code, _, err = hconf("run", "good.toml")
    assert code == 3
    assert err == "hconf: mnexec: is missing, capture False, taps True, 21 hosts (fix: apt-get install mininet)\n"
    assert nothing_was_made()


def test_bad_input_is_found_before_what_the_machine_lacks(hconf: Hconf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("testbed.doctor.require_for_run", lambda **_: pytest.fail("asked the machine first"))
    assert hconf("run", "good.toml", "--set", "experiment.seed=none")[0] == 2


def test_topologies_are_listed_and_shown(hconf: Hconf) -> None:
    code, out, _ = hconf("topo", "list", "abilene")
    assert code == 0
    assert "topozoo/Abilene" in out.splitlines()
    code, out, _ = hconf("topo", "show", "tiers", "--set", "csrs=3")
    assert code == 0
    assert "CSRs: csr1, csr2, csr3\n" in out
    code, out, _ = hconf("topo", "show", "topozoo/Abilene", "--set", "csrs=2", "--set", "login_node=Denver")
    assert (code, "Denver-login" in out) == (0, True)


def test_the_columns_are_printed(hconf: Hconf) -> None:
    code, out, _ = hconf("report", "--columns")
    assert code == 0
    assert "## deliveries.csv" in out


def test_help_loads_nothing_heavy() -> None:
    program = (
        "import sys, experiments.cli; heavy = {'pandas', 'numpy', 'mininet', 'scapy', 'trio', 'networkx', 'matplotlib'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_topology_is_drawn_into_a_file(hconf: Hconf, tmp_path: Path) -> None:
    network = tmp_path / "mine.conf"
    network.write_text("[nodes]\na: _\nb: _\n[links]\na:b delay=1ms\n")
    picture = tmp_path / "mine.svg"
    code, out, _ = hconf("topo", "show", str(network), "--set", "csrs=1", "--out", str(picture))
    assert code == 0
    assert f"drawn to {picture}" in out
    assert picture.read_bytes().startswith(b"<?xml")
    code, out, _ = hconf("topo", "show", str(network))
    assert "a-b" in out


def test_the_reference_and_the_schema_are_printed(hconf: Hconf) -> None:
    assert hconf("check", "--reference")[1].startswith("# Experiment files")
    assert '"$schema"' in hconf("check", "--schema")[1]
    code, _, err = hconf("check")
    assert code == 2
    assert "no experiment file given" in err


def test_a_check_says_how_much_of_a_trace_is_replayed(hconf: Hconf, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("time_s,device_id,event,size_bytes\n1,ue1,message,5\n99,ue1,message,5\n")
    experiment = tmp_path / "a.toml"
    experiment.write_text(
        '[experiment]\nname = "x"\nduration_s = 9\n[topology]\nname = "tiers"\n[[workload]]\nkind = "trace"\nfile = "t.csv"\n'
    )
    code, out, _ = hconf("check", str(experiment))
    assert code == 0
    assert "2 rows, time_s from 1 to 99; 1 of them are replayed" in out
    (tmp_path / "t.csv").write_text("time_s,device_id,event\n")
    code, _, err = hconf("check", str(experiment))
    assert code == 2
    assert f"{tmp_path / 't.csv'}:1: the column size_bytes is missing" in err

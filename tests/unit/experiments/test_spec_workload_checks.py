from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from experiments.spec import Experiment, load_experiment
from experiments.spec_workloads import PoissonWorkload, PresenterWorkload
from topologies.errors import InputError

BASE = """\
[experiment]
name = "x"
duration_s = 20
[topology]
name = "tiers"
csrs = 2
ues_per_csr = 2
ues_at = { csr2 = 3 }
"""
TRACE = "time_s,device_id,event,size_bytes\n1,ue1,message,5\n2,ue2,leave,\n"

Load = Callable[[str], Experiment]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    (tmp_path / "t.csv").write_text(TRACE)
    (tmp_path / "bad.csv").write_text(TRACE.replace("ue1", "ue9"))

    def load_text(text: str) -> Experiment:
        (tmp_path / "a.toml").write_text(BASE + text)
        return load_experiment(tmp_path / "a.toml")

    return load_text


def test_a_router_stands_for_the_ues_behind_it(load: Load) -> None:
    text = '[[workload]]\nkind = "poisson"\nrate_per_s = 1\npublishers = ["ue1", "csr2"]\n'
    experiment = load(text + '[[attendance]]\ndevices = ["csr1"]\njoin_at_s = 1\n')
    workload = experiment.workloads[0]
    assert isinstance(workload, PoissonWorkload)
    assert workload.publishers == ("ue1", "ue3", "ue4", "ue5")
    assert experiment.attendance[0].devices == ("ue1", "ue2")


def test_a_talk_has_one_speaker_unless_it_says_otherwise(load: Load) -> None:
    experiment = load('[[workload]]\nkind = "presenter"\nslide_s = 5\n')
    workload = experiment.workloads[0]
    assert isinstance(workload, PresenterWorkload)
    assert workload.publishers == ("ue1",)


def test_a_trace_is_read_and_known_by_its_content(load: Load) -> None:
    experiment = load('[[workload]]\nkind = "trace"\nfile = "t.csv"\n')
    trace = experiment.traces[0]
    assert (trace.rows, trace.replayed, trace.comes_and_goes) == (2, 2, frozenset({"ue2"}))
    assert len(trace.sha256) == 64


WORKLOAD = '[[workload]]\nkind = "{}"\n'
MISTAKES = [
    ('poisson"\nrate_per_s = 1\npublishers = ["ue1", "csr1"]#', "publishers, item 2: `ue1` is named twice, by `csr1`", "once"),
    ('poisson"\nrate_per_s = 1\npublishers = ["core1"]#', "there is no UE `core1`", "a core without UEs behind it"),
    ('poisson"\nrate_per_s = 1\npublishers = ["csr9"]#', "there is no UE `csr9`", "did you mean `csr2` or `csr1`?"),
    ('flash-crowd"\nrate_per_s = 5\npeak_rate_per_s = 1\npeak_at_s = 3#', "peak_rate_per_s = 1 is below rate_per_s (5)", "at least 5"),
    ('on-off"\nrate_per_s = 5\non_s = 0\noff_s = 1#', "on_s = 0 is not above 0", "a number above 0"),
    ('on-off"\nrate_per_s = 5\non_s = 1\noff_s = 1\nlaw = "paretto"#', 'law = "paretto" is unknown', "did you mean `pareto`?"),
    ('diurnal"\nrate_per_s = 5\nday_s = 10\nswing_ratio = 1.5#', "swing_ratio = 1.5 is above 1", "for 1.5 % write 0.015"),
    ('trace"\nfile = "nothing.csv"#', "there is no file", "seen from the experiment file's folder"),
    ('trace"\nfile = "."#', "there is no file", "name a CSV file"),
    ('trace"\nfile = "t.csv"\npublishers = ["ue1"]#', '`publishers` does not belong to kind = "trace"', "leave it out"),
    ('trace"\nfile = "t.csv"\ndevices = { anna = "ue77" }#', "devices.anna: there is no UE `ue77`", "ue1 to ue5"),
    ('trace"\nfile = "t.csv"\nspeed = 0#', "speed = 0 is below 1e-06", "write a number"),
    ('trace"\nfile = "t.csv"\nfrom_s = 100#', "none of its rows falls into the run", "from_s = 1"),
    ('trace"\nfile = "t.csv"\n[[workload]]\nkind = "trace"\nfile = "t.csv"#', "`ue2` joins or leaves in the trace of [[workload]] 1 too", "one trace"),
]  # fmt: skip


@pytest.mark.parametrize(("workload", "problem", "remedy"), MISTAKES, ids=[mistake[1][:40] for mistake in MISTAKES])
def test_a_wrong_workload_is_refused(load: Load, workload: str, problem: str, remedy: str) -> None:
    with pytest.raises(InputError) as caught:
        load(WORKLOAD.replace('{}"', workload))
    assert problem in f"{caught.value.where}: {caught.value.problem}"
    assert remedy in caught.value.remedy


def test_a_mistake_in_a_trace_names_its_own_file_and_line(load: Load, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        load('[[workload]]\nkind = "trace"\nfile = "bad.csv"\n')
    assert caught.value.where == f"{tmp_path / 'bad.csv'}:2"


ATTENDANCE_MISTAKES = [
    ("away_s = 3\njoin_at_s = 1", "away_s: it has no meaning without session_s", "add session_s"),
    ("", "it says nothing", "or session_s, for churn"),
    ("session_s = 0.1", "session_s = 0.1 is below 0.5", "0.5"),
    ('session_s = 1\ndevices = ["csr1"]\n[[attendance]]\nleave_at_s = 5\ndevices = ["ue2"]', "`ue2` is in another [[attendance]] too", "one of them"),
    ('session_s = 1\n[[workload]]\nkind = "trace"\nfile = "t.csv"', "`ue2` comes and goes as the trace of [[workload]] 1 says", "leave it out here"),
]  # fmt: skip


@pytest.mark.parametrize(("section", "problem", "remedy"), ATTENDANCE_MISTAKES)
def test_wrong_churn_is_refused(load: Load, section: str, problem: str, remedy: str) -> None:
    with pytest.raises(InputError) as caught:
        load(f"[[attendance]]\n{section}\n")
    assert problem in f"{caught.value.where}: {caught.value.problem}"
    assert remedy in caught.value.remedy


def test_ues_at_names_csrs_that_there_are(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(BASE.replace("csr2 =", "csr3 ="))
    with pytest.raises(InputError, match=r"ues_at: `csr3` is no CSR \(fix: did you mean"):
        load_experiment(tmp_path / "a.toml")
    (tmp_path / "a.toml").write_text(BASE.replace("csr2 = 3", "csr1 = 0, csr2 = 0"))
    with pytest.raises(InputError, match=r"ues_at: it leaves no UE at all"):
        load_experiment(tmp_path / "a.toml")

"""The file itself: missing, broken, overridden."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from experiments import spec
from experiments.spec import (
    Experiment,
    PoissonWorkload,
    load_experiment,
)
from tests.unit.experiments.spec_files import GOOD, Refusal
from topologies.errors import InputError

QUICKSTART = Path(spec.__file__).with_name("quickstart.toml")


def line_of(text: str, start: str) -> int:
    return next(number for number, line in enumerate(text.splitlines(), 1) if line.startswith(start))


# --- the file itself


def test_a_missing_file_gets_the_nearest_name(tmp_path: Path) -> None:
    (tmp_path / "quickstart.toml").write_text(GOOD)
    with pytest.raises(InputError, match=r"no such file.*did you mean .*quickstart\.toml"):
        load_experiment(tmp_path / "quikstart.toml")
    with pytest.raises(InputError, match=r"no such file.*check the name"):
        load_experiment(tmp_path / "nowhere" / "x.toml")


def test_a_directory_is_refused_with_the_files_in_it(tmp_path: Path) -> None:
    (tmp_path / "one.toml").write_text(GOOD)
    with pytest.raises(InputError, match=r"it is a directory.*such as .*one\.toml"):
        load_experiment(tmp_path)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "it is empty"),
        (b" \n\n", "it is empty"),
        (b"\x7fELF\x02\x01\x01\xff", "it is not UTF-8 text (byte 0xff at offset 7)"),
        (b"a = 1\x00", "it is a binary file"),
        ("[experiment]".encode("utf-16"), "it is not UTF-8 text"),
        (b"#" * (4 * 1024 * 1024 + 1), "it is larger than"),
        (b"# nothing\n", "the table `[experiment]` is missing"),
        (b"a = " + b"[" * 50_000, "nested too deeply"),
        (b"a = " + b"9" * 5_000, "an impossible number"),
    ],
)
def test_a_file_that_is_no_experiment_is_refused(tmp_path: Path, content: bytes, problem: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        load_experiment(path)
    assert problem in caught.value.problem
    assert caught.value.where.startswith(str(path))


def test_a_name_that_no_file_can_have_is_refused() -> None:
    with pytest.raises(InputError, match=r"'a\\x00b': it cannot be read"):
        load_experiment(Path("a\0b"))


@pytest.mark.parametrize(
    ("old", "new", "line", "remedy"),
    [
        ('name = "good"', "name = good", 2, "put text in double quotes"),
        ("duration_s = 20", "duration_s = 20 s", 3, "write the number alone"),
        ("[topology]", "[topology", 5, "a table is [name]"),
        ("duration_s = 20", "duration_s = 20\nduration_s = 21", 4, "each key stands once"),
    ],
)
def test_a_syntax_error_shows_the_line(refusal: Refusal, old: str, new: str, line: int, remedy: str) -> None:
    error = refusal(old, new)
    assert error.where.endswith(f"a.toml:{line}")
    assert "not valid TOML" in error.problem
    assert remedy in error.remedy


def test_a_file_that_ends_too_early_is_refused(refusal: Refusal) -> None:
    assert refusal("", 'x = """').remedy == "close what the last line opens"


# --- overrides


def test_overrides_change_the_file(load: Callable[..., Experiment]) -> None:
    experiment = load(
        GOOD,
        "experiment.seed=42",
        "conference.mode=push",
        "fault.1.at_s = 2.5",
        'links."Chicago-NewYork".delay_ms=11',
        "topology.ues_per_csr=1",
        'workload.1.publishers=["ue2"]',
    )
    assert experiment.settings.seed == 42
    assert experiment.conference.mode == "push"
    assert experiment.faults[0].at_s == 2.5
    assert experiment.topology.link("NewYork-Chicago").properties.delay_ms == 11.0
    assert experiment.topology.ues == ("ue1", "ue2")
    workload = experiment.workloads[0]
    assert isinstance(workload, PoissonWorkload)
    assert workload.publishers == ("ue2",)


@pytest.mark.parametrize(
    ("override", "problem", "remedy"),
    [
        ("experiment.seed", "not of the form table.key=value", "experiment.seed=3"),
        ("=3", "not of the form table.key=value", "experiment.seed=3"),
        ("experiment..seed=3", "not of the form table.key=value", "experiment.seed=3"),
        ("seed=3", "`seed` names no key of a table", "write the table first"),
        ("experiment.sede=3", "unknown key `sede`", "did you mean `seed`?"),
        ("conferense.mode=push", "no table `conferense`", "did you mean [conference]?"),
        ("experiment.seed=many", 'seed = "many" is text, not a number', "a whole number from 0"),
        ("experiment.seed=", 'seed = "" is text, not a number', "a whole number from 0"),
        ("experiment.duration_s.x=3", "[experiment]: duration_s is a value, so it has no `x`", "leave `.x` out"),
        ("links.access.loss_ratio=5", "is above 1", "for 5 % write 0.05"),
        ("fault.2.at_s=3", "`2` is not an entry of [fault], which has 1", "from 1 to 1"),
        ("fault.first.at_s=3", "`first` is not an entry of [fault]", "from 1 to 1"),
        ("fault.1.target=Denver-Miami", "no link `Denver-Miami`", ""),
        ("topology.name=abilene", "not a known topology", "`topozoo/Abilene`"),
        ("conference=push", "names no key of a table", "write the table first"),
    ],
)
def test_a_bad_override_is_refused_like_the_file(refusal: Refusal, override: str, problem: str, remedy: str) -> None:
    error = refusal("", "", override)
    assert error.where.startswith(f"--set {override}")
    assert problem in error.problem
    assert remedy in error.remedy

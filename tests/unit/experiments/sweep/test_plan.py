from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.sweep.plan import Axis, SweepPlan, parse_axis, parse_seeds, plan_sweep
from topologies.errors import InputError

TEXT = """
[experiment]
name = "small"
duration_s = 2
seed = 5
[topology]
name = "tiers"
[[workload]]
kind = "poisson"
rate_per_s = 1.0
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(TEXT)
    return path


def test_a_grid_is_every_combination_with_every_seed_the_last_key_fastest(file: Path) -> None:
    plan = plan_sweep(file, ["conference.mode=push,pull", "links.core.delay_ms=1,2"], seeds=(3, 4), mode="simulated")
    points = plan.points()
    assert [(point.number, point.values, point.seed) for point in points] == [
        (1, ("push", "1"), 3), (2, ("push", "1"), 4), (3, ("push", "2"), 3), (4, ("push", "2"), 4),
        (5, ("pull", "1"), 3), (6, ("pull", "1"), 4), (7, ("pull", "2"), 3), (8, ("pull", "2"), 4),
    ]  # fmt: skip
    experiment = plan.experiment(points[7])
    assert (experiment.conference.mode, experiment.settings.seed) == ("pull", 4)
    assert {link.properties.delay_ms for link in experiment.topology.links if link.tier == "core"} == {2.0}


def test_a_list_takes_values_side_by_side_and_one_value_for_all(file: Path) -> None:
    plan = plan_sweep(
        file,
        ["links.core.delay_ms=1,2", "links.access.delay_ms=3,4", "conference.mode=push"],
        seeds=(1,), mode="simulated", is_list=True,
    )  # fmt: skip
    assert [point.values for point in plan.points()] == [("1", "3", "push"), ("2", "4", "push")]
    assert plan.swept == ["links.core.delay_ms", "links.access.delay_ms"]


def test_a_setting_of_a_mode_that_no_point_has_is_refused(file: Path) -> None:
    """Its values were run and compared, and the comparison said that they make no difference."""
    with pytest.raises(InputError, match="about mode svs, and no point of the sweep has that") as raised:
        plan_sweep(file, ["svs.suppression_s=0.1,0.2"], seeds=(1,), mode="simulated")
    assert "add --set conference.mode=svs" in str(raised.value)
    plan_sweep(file, ["svs.suppression_s=0.1,0.2", "conference.mode=hybrid,svs"], seeds=(1,), mode="simulated")


def test_without_seeds_it_is_the_files_own(file: Path) -> None:
    assert [point.seed for point in plan_sweep(file, [], seeds=None, mode="simulated").points()] == [5]


def test_the_same_plan_has_the_same_digest_and_another_another(file: Path) -> None:
    plans = [
        plan_sweep(file, [setting], seeds=seeds, mode="simulated")
        for setting, seeds in (("conference.mode=push,pull", (1,)), ("conference.mode=push", (1,)))
    ]
    assert plans[0].digest == plan_sweep(file, ["conference.mode=push,pull"], seeds=(1,), mode="simulated").digest
    assert plans[0].digest != plans[1].digest


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["conference.moed=push,pull"], r"--set conference\.moed=push: .*`moed`"),
        (["conference.mode=push,pusch"], "--set conference.mode=pusch"),
        (["workload.2.rate_per_s=1,2"], "is not an entry"),
        (["experiment.seed=1,2"], "use --seeds"),
        (["conference.mode=push", "conference.mode=pull"], "set twice"),
        (["conference.mode=push,push"], "there twice"),
        (["conference.mode=push,"], "a value is empty"),
        (["conference.mode"], "not of the form"),
        (["nothing=1,2"], "no key of a table"),
        (["conference.armed_max=" + ",".join(map(str, range(1, 257))), "conference.history_max_entries="
          + ",".join(map(str, range(1, 500)))], "more than 100,000"),
    ],
)  # fmt: skip
def test_what_cannot_be_swept_is_refused_with_the_place(file: Path, settings: list[str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        plan_sweep(file, settings, seeds=(1,), mode="simulated")


def test_lists_of_different_lengths_do_not_stand_side_by_side(file: Path) -> None:
    with pytest.raises(InputError, match=r"conference\.mode has 2, links\.core\.delay_ms has 3"):
        plan_sweep(
            file, ["conference.mode=push,pull", "links.core.delay_ms=1,2,3"], seeds=(1,), mode="simulated", is_list=True
        )


def test_what_the_mode_cannot_do_is_refused_before_anything_runs(file: Path) -> None:
    with pytest.raises(InputError, match=r"cannot do clocks\.skew_ppm"):
        plan_sweep(file, ["clocks.skew_ppm.csr1=0,100"], seeds=(1,), mode="emulated")


@pytest.mark.parametrize("text", ["", "1-", "a", "3-1", "1,1", "1-3,2", "-1", "1.5", "0-99999999999", "9" * 30])
def test_what_are_no_seeds(text: str) -> None:
    with pytest.raises(InputError, match="--seeds"):
        parse_seeds(text)


WORD = st.text("abcxyz0189._-", min_size=1)
VALUE = st.one_of(
    WORD, WORD.map(lambda word: f'"{word},{word}"'), st.lists(WORD, min_size=1).map(lambda all_: f"[{','.join(all_)}]")
)


@given(values=st.lists(VALUE, min_size=1, max_size=6, unique=True))
def test_commas_in_quotes_and_brackets_separate_nothing(values: list[str]) -> None:
    assert parse_axis("a.b=" + ",".join(values)) == Axis("a.b", tuple(values))


@given(
    lengths=st.lists(st.integers(1, 4), max_size=3),
    seeds=st.lists(st.integers(0, 99), min_size=1, max_size=4, unique=True),
)
def test_every_point_is_there_once(lengths: list[int], seeds: list[int]) -> None:
    axes = tuple(Axis(f"a.k{index}", tuple(map(str, range(length)))) for index, length in enumerate(lengths))
    plan = SweepPlan(name="x", file="x", text="", axes=axes, is_list=False, seeds=tuple(seeds), mode="simulated")
    points = plan.points()
    expected = len(seeds)
    for length in lengths:
        expected *= length
    assert len({(point.values, point.seed) for point in points}) == len(points) == expected
    assert [point.number for point in points] == list(range(1, expected + 1))

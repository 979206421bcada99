from __future__ import annotations

from pathlib import Path

import pytest

from experiments.fuzz.case import Case, draw_case, topology_of
from experiments.fuzz.shrink import shrink
from experiments.fuzz.trial import try_experiment, try_seed
from experiments.spec import parse_experiment
from experiments.toml_text import to_toml


def always() -> bool:
    return True


@pytest.mark.parametrize("seed", range(40))
def test_every_schedule_is_a_valid_experiment_file_and_always_the_same(seed: int) -> None:
    case = draw_case(seed)
    assert case == draw_case(seed)
    experiment = parse_experiment(to_toml(case), Path("fuzz.toml"))
    assert len(experiment.faults) == len(case["fault"])
    assert experiment.topology == topology_of(case).with_properties(
        {link.name: link.properties for link in experiment.topology.links},
        {link.name: link.back for link in experiment.topology.links if link.back is not None},
    )


def test_all_kinds_of_faults_are_drawn() -> None:
    faults = [fault for seed in range(60) for fault in draw_case(seed)["fault"]]
    keys = {key for fault in faults for key in fault}
    assert {fault["kind"] for fault in faults} >= {"impair", "link-down"}
    assert keys >= {
        "delay_ms",
        "jitter_ms",
        "loss_ratio",
        "duplicate_ratio",
        "reorder_ratio",
        "corrupt_ratio",
        "sender",
    }
    assert all(fault["at_s"] + fault["for_s"] for fault in faults)


def test_links_with_every_trait_are_drawn_one_way_too() -> None:
    tables = [table for seed in range(120) for table in draw_case(seed)["links"].values()]
    one_way = [table for one in tables for table in one.get("from", {}).values()]
    for found in (tables, one_way):
        keys = {key for table in found for key in table}
        assert keys >= {"jitter_distribution", "jitter_keeps_order", "good_to_bad_ratio", "duplicate_ratio"}
        assert keys >= {"corrupt_ratio", "queue_bytes", "mtu_bytes"}


def test_objects_and_streams_are_drawn() -> None:
    kinds = [workload["kind"] for seed in range(60) for workload in draw_case(seed)["workload"]]
    assert kinds.count("objects") > 5
    assert kinds.count("media") > 5


def test_everything_is_healed_before_the_end() -> None:
    for seed in range(60):
        case = draw_case(seed)
        assert all(fault["at_s"] + fault["for_s"] < case["experiment"]["duration_s"] for fault in case["fault"])


def test_a_schedule_runs_the_same_each_time() -> None:
    one, two = try_seed(2), try_seed(2)
    assert one == two
    assert not one.violations


def test_shrinking_leaves_only_what_it_takes() -> None:
    case = next(case for case in map(draw_case, range(1_000)) if len(case["fault"]) > 10 and case.get("clocks"))
    wanted = case["fault"][7]

    def breaks(candidate: Case) -> bool:
        return any(
            (fault["kind"], fault["target"]) == (wanted["kind"], wanted["target"]) for fault in candidate["fault"]
        )

    small = shrink(case, breaks, may_go_on=always)
    assert len(small["fault"]) == 1
    assert not small.get("clocks")
    assert not small["workload"]
    assert not small["conference"]
    assert len(topology_of(small).ues) <= len(topology_of(case).ues)
    parse_experiment(to_toml(small), Path("small.toml"))
    assert len(case["fault"]) > 10, "the case itself was changed"


def test_shrinking_stops_when_time_is_up() -> None:
    case = draw_case(3)
    assert shrink(case, lambda _: True, may_go_on=lambda: False) == case


def test_a_conference_that_cannot_come_about_is_a_violation() -> None:
    case = draw_case(2)
    case["links"] = {"access": {"loss_ratio": 1.0}}
    case["attendance"] = []
    trial = try_experiment(parse_experiment(to_toml(case), Path("deaf.toml")))
    assert trial.kinds == {"run.complete"}


def test_no_disk_is_lost_where_a_proxy_ue_hands_over() -> None:
    """Such a schedule may lose what is `durable`, by design: seed 695856787119 did."""
    for seed in (*range(200), 695856787119):
        case = draw_case(seed)
        proxy_ues = set(topology_of(case).proxy_ues)
        left = {device for each in case["attendance"] if "leave_at_s" in each for device in each["devices"]}
        assert not left & proxy_ues or "disk-loss" not in {fault["kind"] for fault in case["fault"]}

"""The CSV files of the hand-made run in conftest.py, figure by figure."""

from __future__ import annotations

import contextlib
import csv
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from experiments.analysis import analyse
from experiments.columns import TABLES
from experiments.history import TOPOLOGY_FILE
from experiments.metrics import METRICS
from experiments.recorded_run import write_topology
from experiments.run_folder import RunFolder
from proxy.records import (
    Applied,
    CountersReported,
    MessageCount,
    ObjectFetched,
    ObjectPublished,
    Published,
    SessionChanged,
    SnapshotApplied,
)
from tests.unit.experiments.analysis.conftest import EPOCH_S, QUIESCED_S, TOPOLOGY
from topologies.errors import InputError

WriteRun = Callable[..., RunFolder]

FAULT: dict[str, Any] = {
    "fault_id": "f1", "kind": "link-down", "target": "csr1-csr2", "parameters": {}, "intended_s": 105.0,
    "applied_s": 105.0, "verified": True, "healed_s": None, "source": "schedule",
}  # fmt: skip


def rows(folder: RunFolder, name: str) -> list[dict[str, str]]:
    with (folder.path / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def summary(folder: RunFolder) -> dict[str, str]:
    return {row["metric"]: row["value"] for row in rows(folder, "summary.csv")}


def test_every_file_has_exactly_the_columns_of_the_schema(write_run: WriteRun) -> None:
    folder = write_run()
    analyse(folder)
    for table in TABLES:
        with (folder.path / table.file).open(encoding="utf-8", newline="") as file:
            assert next(csv.reader(file)) == table.names, table.file
    written = [row["metric"] for row in rows(folder, "summary.csv")]
    assert written == [metric.name.replace("<fault_id>", "f1") for metric in METRICS]


def test_a_column_that_is_no_text_holds_only_numbers_or_flags(write_run: WriteRun) -> None:
    folder = write_run()
    analyse(folder)
    for table in TABLES:
        for row in rows(folder, table.file):
            for column in table.columns:
                value = row[column.name]
                match column.kind:
                    case "flag":
                        assert value in ("true", "false", ""), (table.file, column.name)
                    case "count":
                        assert value == "" or int(value) >= 0, (table.file, column.name)
                    case "number":
                        assert value == "" or math.isfinite(float(value)), (table.file, column.name)
                    case "text":
                        pass


def test_updates(write_run: WriteRun) -> None:
    folder = write_run()
    analyse(folder)
    updates = {row["update_id"]: row for row in rows(folder, "updates.csv")}
    assert updates["main/ue1/1/2"] == {
        "update_id": "main/ue1/1/2", "conference": "main", "publisher": "ue1", "proxy": "csr1", "boot": "1", "seq": "2",
        "event": "message", "size_bytes": "120", "object_name": "", "published_s": "5.1", "acked_s": "5.1041",
        "ack_level": "accepted", "expected_receivers": "2", "delivered_receivers": "2",
    }  # fmt: skip
    assert len(updates) == 6


def test_deliveries(write_run: WriteRun) -> None:
    folder = write_run()
    analyse(folder)
    deliveries = {(row["update_id"], row["receiver"]): row for row in rows(folder, "deliveries.csv")}
    assert len(deliveries) == 12
    assert deliveries["main/ue1/1/1", "ue3"] == {
        "update_id": "main/ue1/1/1", "publisher": "ue1", "receiver": "ue3", "published_s": "1.0", "delivered_s": "1.0099",
        "latency_ms": "9.9", "path_delay_ms": "9.0", "ratio": "1.1", "via": "armed", "during_fault": "false",
        "was_joined": "true",
    }  # fmt: skip
    during = {key[0] for key, row in deliveries.items() if row["during_fault"] == "true"}
    assert during == {"main/ue3/1/1", "main/ue1/1/2", "main/ue3/1/2", "main/ue1/1/3"}


def test_faults_and_recovery(write_run: WriteRun) -> None:
    folder = write_run()
    analysis = analyse(folder)
    (fault,) = rows(folder, "faults.csv")
    assert fault == {
        "fault_id": "f1", "kind": "link-down", "target": "csr1-csr2", "parameters": '{"for_s":3.0}',
        "intended_s": "5.0", "applied_s": "5.0", "verified": "true", "healed_s": "8.0", "source": "schedule",
        "healed_by": "", "packets_matched": "", "packets_hit": "", "detail": "",
    }  # fmt: skip
    recovery = {row["node"]: row for row in rows(folder, "recovery.csv")}
    assert set(recovery) == {"ue1", "ue2", "ue3", "csr1", "csr2"}
    assert recovery["ue3"] == {
        "fault_id": "f1", "node": "ue3", "role": "ue", "detected_s": "", "detection_ms": "", "recovered_s": "5.45",
        "outage_ms": "450.0", "updates_missed": "1", "updates_recovered": "1", "updates_lost": "0", "floor_ms": "19.0",
    }  # fmt: skip
    assert (recovery["ue1"]["outage_ms"], recovery["ue2"]["outage_ms"]) == ("400.0", "410.0")
    assert recovery["csr1"]["detection_ms"] == "2.0"
    assert recovery["csr1"]["recovered_s"] == "8.05"
    assert recovery["csr1"]["outage_ms"] == ""
    assert analysis.faults[0].outage_max_ms == pytest.approx(450.0)
    assert summary(folder)["recovery.f1.outage_ms.max"] == "450.0"


def test_an_update_lost_in_a_fault_makes_the_outage_last_to_the_end(write_run: WriteRun) -> None:
    lossy = [
        ("ue1", 1, 1.0, {"ue2": 4.4, "ue3": 9.9}),
        ("ue1", 2, 5.1, {}),
        ("ue1", 3, 6.0, {"ue2": 4.4, "ue3": 20.0}),
    ]
    folder = write_run(traffic=lossy)
    analysis = analyse(folder)
    recovery = {row["node"]: row for row in rows(folder, "recovery.csv")}
    assert recovery["ue3"]["updates_lost"] == "1"
    assert recovery["ue3"]["recovered_s"] == ""
    assert float(recovery["ue3"]["outage_ms"]) == pytest.approx(7000.0)
    assert {check.name for check in analysis.failed} == {"invariant.nothing-lost"}
    assert summary(folder)["deliveries.lost"] == "2.0"


RELAPSE = [
    ("ue1", 1, 5.2, {"ue2": 4.4, "ue3": 20.0}),  # on time over the other path,
    ("ue1", 2, 6.5, {"ue2": 4.4, "ue3": 900.0}),  # then something held up the next one
    ("ue1", 3, 7.9, {"ue2": 4.4, "ue3": 60.0}),  # a little late: a busy machine
]


def test_a_client_may_relapse_while_the_fault_is_in_force(write_run: WriteRun) -> None:
    folder = write_run(traffic=RELAPSE)
    analyse(folder)
    ue3 = next(row for row in rows(folder, "recovery.csv") if row["node"] == "ue3")
    assert (ue3["outage_ms"], ue3["recovered_s"], ue3["updates_missed"]) == ("2400.0", "7.4", "1")


def test_random_loss_is_not_taken_for_a_relapse(write_run: WriteRun) -> None:
    lossy = FAULT | {"fault_id": "f2", "kind": "impair", "target": "csr1-ue1", "parameters": {"loss_ratio": 0.1}}
    folder = write_run(traffic=RELAPSE, faults=[FAULT, lossy])
    analyse(folder)
    ue3 = next(row for row in rows(folder, "recovery.csv") if (row["fault_id"], row["node"]) == ("f1", "ue3"))
    assert (ue3["outage_ms"], ue3["updates_missed"]) == ("0.0", "0")


def test_a_fault_that_disturbs_nothing_has_no_outage(write_run: WriteRun) -> None:
    folder = write_run(faults=[FAULT | {"target": "core1-csr2"}])
    analyse(folder)
    recovery = {row["node"]: row for row in rows(folder, "recovery.csv")}
    assert set(recovery) == {"core1", "csr2"}  # nobody's shortest path crosses it
    assert summary(folder)["recovery.outage_ms.max"] == "0.0"


@pytest.mark.parametrize(("mode", "outages_ms"), [("hybrid", {"2000.0"}), ("svs", {"0.0"}), ("psync", {"0.0"})])
def test_what_is_fetched_is_not_late_before_it_has_crossed_the_path_three_times(
    write_run: WriteRun, mode: str, outages_ms: set[str]
) -> None:
    fetched = [
        ("ue1", 1, 1.0, {"ue2": 12.0, "ue3": 27.0}),
        ("ue1", 2, 5.5, {"ue2": 12.0, "ue3": 57.0}),
        ("ue1", 3, 6.943, {"ue2": 12.0, "ue3": 57.0}),
    ]
    experiment = {"expect": [], "fault": [{}], "conference": {"mode": mode}}
    folder = write_run(traffic=fetched, manifest={"experiment": experiment})
    analyse(folder)
    recovery = {row["node"]: row["outage_ms"] for row in rows(folder, "recovery.csv") if row["role"] == "ue"}
    assert set(recovery.values()) == outages_ms
    assert next(row for row in rows(folder, "recovery.csv") if row["node"] == "ue3")["floor_ms"] == "19.0"


def test_without_proxies_a_router_that_crashes_takes_those_behind_it_along(write_run: WriteRun) -> None:
    crash = FAULT | {"kind": "crash", "target": "csr2", "healed_s": 108.0}
    traffic = [
        ("ue1", 1, 1.0, {"ue2": 12.0, "ue3": 27.0}),
        ("ue1", 2, 5.5, {"ue2": 12.0, "ue3": 3_000.0}),
        ("ue1", 3, 9.0, {"ue2": 12.0, "ue3": 27.0}),
    ]
    experiment = {"expect": [], "fault": [{}], "conference": {"mode": "svs"}}
    folder = write_run(traffic=traffic, faults=[crash], manifest={"experiment": experiment})
    write_topology(folder.raw / TOPOLOGY_FILE, TOPOLOGY.served_by(()))
    analyse(folder)
    recovery = {row["node"]: row for row in rows(folder, "recovery.csv")}
    assert (recovery["ue3"]["outage_ms"], recovery["ue3"]["updates_missed"]) == ("3500.0", "1")
    assert recovery["ue3"]["floor_ms"] == ""


def test_a_link_up_heals_the_link_down_before_it(write_run: WriteRun) -> None:
    up = FAULT | {"fault_id": "f2", "kind": "link-up", "applied_s": 108.0, "intended_s": 108.0}
    folder = write_run(faults=[FAULT, up])
    analyse(folder)
    faults = {row["fault_id"]: row for row in rows(folder, "faults.csv")}
    assert faults["f1"]["healed_s"] == "8.0"
    recovery = {(row["fault_id"], row["node"]): row for row in rows(folder, "recovery.csv")}
    assert recovery["f2", "csr1"]["detection_ms"] == "50.0"
    assert recovery["f1", "ue3"]["outage_ms"] == "450.0"
    assert recovery["f2", "ue3"]["updates_missed"] == "1"  # late by random loss, but the first after the link-up


def test_nodes_links_and_messages(write_run: WriteRun) -> None:
    folder = write_run()
    analyse(folder)
    nodes = {row["node"]: row for row in rows(folder, "nodes.csv")}
    assert nodes["csr1"] == {
        "node": "csr1", "role": "csr", "cpu_s": "0.5", "max_rss_bytes": "20000000", "start_s": "-1.5", "exits": "ok",
        "cs_hits": "3", "cs_misses": "9", "cs_hit_ratio": "0.25",
        "malformed": "2", "refused": "3", "refusals": "join_replayed: 1; update_forged: 2",
        "applications": "0", "unread": "0", "timer_lag_p99_ms": "1.5", "timer_lag_max_ms": "1.5",
        "processing_p50_ms": "", "processing_p99_ms": "", "wake_up_p50_ms": "", "wake_up_p99_ms": "",
    }  # fmt: skip
    assert set(nodes) == {"core1", "csr1", "csr2", "ue1", "ue2", "ue3", "login"}
    link = rows(folder, "links.csv")[0]
    assert (link["from"], link["to"], link["configured_rate_bps"]) == ("csr1", "csr2", "10000000.0")
    assert (link["packets"], link["dropped_loss"], link["delay_error_p99_ms"]) == ("980", "20", "0.5")
    assert rows(folder, "messages.csv")[0] == {
        "link": "csr1-csr2", "from": "csr1", "to": "csr2", "message": "sync-update", "packets": "5", "bytes": "900",
    }  # fmt: skip
    values = summary(folder)
    assert (values["messages.packets"], values["messages.packets_per_update"]) == ("10.0", "1.666667")
    assert values["network.up_s"] == "2.5"


def test_metrics_are_over_scopes(write_run: WriteRun) -> None:
    folder = write_run()
    values = analyse(folder).values
    assert values["updates.published"] == 6
    assert values["deliveries.expected"] == values["deliveries.delivered"] == 12
    assert values["deliveries.before_fault.ratio.max"] == pytest.approx(1.1)
    assert values["deliveries.during_fault.latency_ms.max"] == pytest.approx(415.0)
    assert values["deliveries.outside_fault.latency_ms.max"] == pytest.approx(200.0)


def test_what_was_published_before_the_start_or_before_a_join_is_not_in_the_metrics(write_run: WriteRun) -> None:
    joining = [("ue3", 1, -0.5, {"ue1": 900.0, "ue2": 900.0})]
    late_joiner = [
        SessionChanged(103.0, "main", "ue9", "csr1", "joined"),
        Applied(103.1, "main", "ue9", "ue1", 1, 1, "recovery", "ue11"),
    ]
    traffic = [*joining, ("ue1", 1, 1.0, {"ue2": 4.4, "ue3": 9.9})]
    folder = write_run(traffic=traffic, faults=[], extra=late_joiner)
    values = analyse(folder).values
    assert values["updates.published"] == 1
    assert values["deliveries.latency_ms.max"] == pytest.approx(9.9)
    late = next(row for row in rows(folder, "deliveries.csv") if row["receiver"] == "ue9")
    assert late["was_joined"] == "false"
    assert late["path_delay_ms"] == ""
    first = next(row for row in rows(folder, "updates.csv") if row["update_id"] == "main/ue1/1/1")
    assert first["expected_receivers"] == first["delivered_receivers"] == "2"


def test_a_snapshot_delivers_what_its_heads_cover(write_run: WriteRun) -> None:
    traffic = [("ue3", 1, 1.0, {"ue2": 9.9}), ("ue3", 2, 2.0, {"ue1": 9.9, "ue2": 9.9})]
    folder = write_run(traffic=traffic, faults=[], extra=[SnapshotApplied(101.5, "main", "ue1", [("ue3", 1, 1)])])
    analysis = analyse(folder)
    deliveries = {(row["update_id"], row["receiver"]): row for row in rows(folder, "deliveries.csv")}
    assert deliveries["main/ue3/1/1", "ue1"]["via"] == "snapshot"
    assert deliveries["main/ue3/1/1", "ue1"]["latency_ms"] == "500.0"
    assert analysis.values["deliveries.lost"] == 0
    assert analysis.values["deliveries.via.snapshot"] == 1
    assert not analysis.failed


def test_an_update_without_ack_and_one_applied_twice(write_run: WriteRun) -> None:
    twice = Applied(101.3, "main", "ue1", "ue3", 1, 1, "recovery", "ue31")
    unacked = Published(103.0, "main", "ue1", 1, 1, "message", 1, "", "x")
    folder = write_run(traffic=[("ue3", 1, 1.0, {"ue1": 9.9, "ue2": 9.9})], faults=[], extra=[twice, unacked])
    analysis = analyse(folder)
    update = next(row for row in rows(folder, "updates.csv") if row["publisher"] == "ue1")
    assert (update["acked_s"], update["ack_level"], update["proxy"]) == ("", "", "csr1")
    assert (update["expected_receivers"], update["delivered_receivers"]) == ("2", "0")
    assert {check.name for check in analysis.failed} == {"invariant.nothing-twice"}


def test_expectations_decide(write_run: WriteRun) -> None:
    expect = [
        {"metric": "deliveries.ratio.p50", "at_most": 3.0},
        {"metric": "recovery.outage_ms.max", "at_most": 400.0},
        {"metric": "deliveries.via.push", "at_least": 0, "at_most": 0},
        {"metric": "network.down_s", "at_most": 3.0},  # nothing measured
    ]
    analysis = analyse(write_run(expect=expect))
    verdicts = {check.name: check.verdict for check in analysis.checks if check.name.startswith("expect.")}
    assert verdicts == {
        "expect.deliveries.ratio.p50": "pass",
        "expect.recovery.outage_ms.max": "fail",
        "expect.deliveries.via.push": "pass",
        "expect.network.down_s": "inconclusive",
    }
    assert len(analysis.failed) == 2


def test_a_killed_run_is_analysed_as_far_as_it_came(write_run: WriteRun) -> None:
    folder = write_run(quiesced_s=None)
    path = folder.raw / "ue3.forwarder.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) - 25])
    for name in ("links.jsonl", "nodes.jsonl"):
        (folder.raw / name).unlink()
    analysis = analyse(folder)
    verdicts = {check.name: check.verdict for check in analysis.checks}
    assert verdicts["invariant.nothing-lost"] == "inconclusive"
    assert verdicts["invariant.agreement"] == "inconclusive"
    assert verdicts["fidelity.records"] == "fail"
    damage = next(check.detail for check in analysis.checks if check.name == "fidelity.records")
    assert "ue3.forwarder.jsonl:9" in damage
    assert "torn off" in damage


def test_records_that_are_gone_are_named(write_run: WriteRun) -> None:
    """A folder that was copied in part is no whole run, and what is missing explains what does not hold."""
    folder = write_run()
    (folder.raw / "ue2.forwarder.jsonl").unlink()
    (folder.raw / "core1.forwarder.jsonl").write_bytes(b"")
    (check,) = [check for check in analyse(folder).checks if check.name == "fidelity.records"]
    assert check.verdict == "fail"
    assert check.detail == "core1.forwarder.jsonl: is empty; ue2.forwarder.jsonl: is missing"


def test_a_run_that_never_got_going_has_empty_files(write_run: WriteRun) -> None:
    folder = write_run(traffic=[], faults=[], quiesced_s=None, links=[])
    values = analyse(folder).values
    assert rows(folder, "deliveries.csv") == []
    assert values["updates.published"] == 0
    assert math.isnan(values["deliveries.ratio.p50"])


def test_a_folder_that_is_no_run_is_refused(write_run: WriteRun, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a folder"):
        RunFolder.open(tmp_path / "missing")
    with pytest.raises(InputError, match="no manifest"):
        RunFolder.open(tmp_path)
    folder = write_run()
    (folder.raw / "topology.json").write_text("{")
    with pytest.raises(InputError, match="damaged"):
        analyse(folder)
    (folder.raw / "topology.json").unlink()
    with pytest.raises(InputError, match="cannot be read"):
        analyse(folder)
    folder.manifest_path.write_bytes(msgspec.json.encode({"schema_version": 99}))
    with pytest.raises(InputError, match="schema_version is 99"):
        analyse(folder)
    folder.manifest_path.write_text("]")
    with pytest.raises(InputError, match="damaged"):
        analyse(folder)


def test_a_run_stopped_before_anybody_said_anything(write_run: WriteRun) -> None:
    folder = write_run(traffic=[], faults=[], quiesced_s=None, links=[])
    for path in folder.raw.glob("*.forwarder.jsonl"):
        path.write_bytes(b"")
    assert analyse(folder).values["deliveries.expected"] == 0
    for table in TABLES:
        assert (folder.path / table.file).is_file()


def test_a_folder_that_cannot_be_written_to_is_refused(write_run: WriteRun) -> None:
    folder = write_run()
    (folder.path / ".updates.csv.new").mkdir()
    with pytest.raises(InputError, match=r"updates\.csv: cannot be written: Is a directory"):
        analyse(folder)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_happened_to_the_files_there_is_a_report_or_a_message(
    write_run: WriteRun, data: st.DataObject
) -> None:
    folder = write_run()
    paths = sorted([folder.manifest_path, *folder.raw.iterdir()])
    path = data.draw(st.sampled_from(paths))
    content = path.read_bytes()
    start = data.draw(st.integers(0, max(0, len(content) - 1)))
    match data.draw(st.sampled_from(["cut", "flip", "insert", "remove", "twice"])):
        case "cut":
            path.write_bytes(content[:start])
        case "flip":
            path.write_bytes(content[:start] + data.draw(st.binary(min_size=1, max_size=1)) + content[start + 1 :])
        case "insert":
            path.write_bytes(content[:start] + data.draw(st.binary(max_size=20)) + content[start:])
        case "remove":
            path.unlink()
        case _:
            path.write_bytes(content + content)
    with contextlib.suppress(InputError):
        analyse(folder)


NAME, STREAM = "/hconf-data/ue1/main/seq=1/v=1", "/hconf-data/ue1/main/seq=2/v=1"


def test_objects_are_counted_for_everybody_who_was_to_have_them(write_run: WriteRun) -> None:
    extra = [
        ObjectPublished(EPOCH_S + 1.0, "main", "ue1", NAME, 1_000, 2, is_stream=False),
        ObjectPublished(EPOCH_S + 2.0, "main", "ue1", STREAM, 5_000, 10, is_stream=True),
        ObjectFetched(
            EPOCH_S + 1.6, "main", "ue2", NAME, EPOCH_S + 1.1, 1_000, 2, 2, 3, [(1, 400), (2, 600)], "complete", None
        ),
        ObjectFetched(EPOCH_S + 4.0, "main", "ue3", STREAM, EPOCH_S + 2.1, 3_500, 7, 8, 1, [(4, 3_500)], "complete", 2),
        CountersReported(
            QUIESCED_S, "core1", "forwarder", 0.0, 0, 0.0, [], 0.0,
            [
                MessageCount("csr1-core1", "csr1", "object-segment", 3, 9_000),
                MessageCount("core1-login", "login", "object-segment", 3, 90_000),
                MessageCount("csr1-core1", "csr1", "object-interest", 3, 90_000),
            ],
            {}, {},
        ),
    ]  # fmt: skip
    folder = write_run(extra=extra)
    values = analyse(folder).values
    by_key = {(row["object_name"], row["receiver"]): row for row in rows(folder, "objects.csv")}
    assert set(by_key) == {(NAME, "ue2"), (NAME, "ue3"), (STREAM, "ue2"), (STREAM, "ue3")}
    row = by_key[NAME, "ue2"]
    assert (row["kind"], row["outcome"], row["fetch_ms"], row["goodput_bps"]) == (
        "object",
        "complete",
        "500.0",
        "16000.0",
    )
    assert (row["bytes_by_hops"], row["path_hops"], row["retransmissions"]) == ("1: 400; 2: 600", "2", "3")
    assert (row["published_s"], row["begun_s"], row["ended_s"], row["deadline_misses"]) == ("1.0", "1.1", "1.6", "")
    missing = by_key[NAME, "ue3"]
    assert (missing["outcome"], missing["begun_s"], missing["path_hops"]) == ("missing", "", "3")
    stream = by_key[STREAM, "ue3"]
    assert (stream["segments"], stream["segments_asked"], stream["deadline_misses"], stream["fetch_ms"]) == (
        "7",
        "8",
        "2",
        "",
    )
    assert (values["objects.expected"], values["objects.lost"], values["objects.fetch_ms.max"]) == (2, 1, 500)
    assert (values["streams.expected"], values["streams.frames"], values["streams.deadline_misses"]) == (2, 7, 2)
    assert values["streams.miss_ratio"] == 0.25
    assert values["objects.copies.max"] == 9_000 / 6_000, "between routers, segments only"


def test_who_was_not_there_when_an_object_was_announced_is_not_expected_to_have_it(write_run: WriteRun) -> None:
    published = ObjectPublished(EPOCH_S - 1.5, "main", "ue1", NAME, 1_000, 2, is_stream=False)
    left = SessionChanged(EPOCH_S + 3.0, "main", "ue3", "csr2", "closed")
    assert analyse(write_run(extra=[published, left])).values["objects.expected"] == 0
    later = msgspec.structs.replace(published, t_s=EPOCH_S + 1.0)
    folder = write_run(extra=[later, left])
    assert analyse(folder).values["objects.lost"] == 1, "ue2; ue3 left before the end"
    assert [row["receiver"] for row in rows(folder, "objects.csv")] == ["ue2"]

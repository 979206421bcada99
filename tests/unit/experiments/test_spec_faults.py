"""Whatever is wrong with a fault is refused before anything starts, by a message that names the place and the mend."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.spec import Experiment, parse_experiment
from experiments.spec_faults import as_injected, needs_scapy
from testbed.faults.model import FAULT_KINDS
from topologies.errors import InputError

BASE = """
[experiment]
name = "a"
duration_s = 10
[topology]
name = "tiers"
cores = 3
csrs = 2
ues_per_csr = 2
"""


def parsed(*faults: str, folder: Path = Path()) -> Experiment:
    tables = "".join(f"[[fault]]\n{text}\n" for text in faults)
    return parse_experiment(BASE + tables, folder / "a.toml")


def fault(kind: str, rest: str, *, at_s: float = 1, for_s: float | None = None) -> str:
    return f'kind = "{kind}"\nat_s = {at_s}\n' + ("" if for_s is None else f"for_s = {for_s}\n") + rest


@pytest.mark.parametrize(
    ("kind", "rest", "place", "problem", "remedy"),
    [
        ("flap", 'target = "core1-core2"\nperiod_s = 1', "[[fault]] 1", "it has no end", "add count"),
        ("flap", 'target = "core1-core2"\nperiod_s = 0.01\ncount = 1', "period_s", "only 5 ms at a time", "20 ms"),
        ("flap", 'target = "core1-core2"\nperiod_s = 1\ncount = 20', "count", "would end at 21 s", "be shorter"),
        ("flap", 'target = "core1-core2"\nperiod_s = 1\ncount = 1\ndown_ratio = 1', "down_ratio", "above", "number"),
        ("flap", 'target = "core1-core9"\nperiod_s = 1\ncount = 1', "target", "no link `core1-core9`", "core1-core"),
        ("flap", 'target = "core1-core2"\ncount = 1', "[[fault]] 1", "`period_s` is missing", "add `period_s"),
        ("black-hole", 'target = "core1-core2"\nsender = "ue1"', "sender", "no end of core1-core2", "core1 or core2"),
        ("impair", 'target = "core1-core2"\ndelay_ms = 9\nramp_s = 3\nfor_s = 2', "ramp_s", "longer (3 s)", "at most 2"),
        ("impair", 'target = "core1-core2"\nrate_mbps = 9\nramp_s = 1', "ramp_s", "no rate_mbps that", "[links]"),
        (
            "impair",
            'target = "core1-core2"\ndelay_ms = 9\njitter_keeps_order = false\nramp_s = 1',
            "ramp_s",
            "jitter_keeps_order changes at once",
            "two faults",
        ),
        ("impair", 'target = "core1-core2"\njitter_keeps_order = "no"', "jitter_keeps_order", "neither true", "true or"),
        ("impair", 'target = "core1-core2"\nmtu_bytes = 500', "mtu_bytes", "", "576"),
        ("impair", 'target = "core1-core2"\njitter_distribution = "pareto"', "jitter_distribution", "", "normal"),
        ("impair", 'target = "core1-core2"\nramp_s = 1', "[[fault]] 1", "it changes nothing", "give delay_ms"),
        ("partition", "", "[[fault]] 1", "it names no groups", "groups = [["),
        ("partition", 'target = "csr1"\ngroups = [["csr1"]]', "[[fault]] 1", "say the same", "give one"),
        ("partition", 'groups = [["csr1", "csr3"]]', "groups", "no node `csr3`", "csr1"),
        ("partition", 'groups = [["csr1"], ["csr1"]]', "groups", "`csr1` is named twice", "one group"),
        ("partition", 'target = "csr1,/csr2"', "target", "no node ``", "use one of"),
        ("partition", 'target = "csr1//csr2"', "target", "group 2 is empty", "name its nodes"),
        ("partition", 'groups = [["core1", "core2", "core3", "csr1", "csr2"]]', "groups", "in one group", "one side"),
        ("partition", "groups = [[]]", "groups", "is empty", "name at least one"),
        ("isolate", 'target = "core7"', "target", "no node `core7`", "core"),
        ("isolate", 'target = "core1-core2"', "target", "no node `core1-core2`", "core1"),
        ("restart", 'target = "ue1"', "target", "`ue1` is a UE", "freeze it"),
        ("restart", 'target = "csr1.proxi"', "target", "no node or process", "csr1.proxy"),
        ("thaw", 'target = "csr1"', "[[fault]] 1", "csr1 is not frozen at 1 s", "put a freeze"),
        ("thaw", 'target = "csr1"\nfor_s = 1', "for_s", "does not belong to kind", "leave it out"),
        ("starve", 'target = "csr1"', "[[fault]] 1", "`cpu_ratio` is missing", "add `cpu_ratio"),
        ("starve", 'target = "csr1"\ncpu_ratio = 20', "cpu_ratio", "cpu_ratio = 20", "for 20 % write 0.2"),
        ("starve", 'target = "csr1-ue1"\ncpu_ratio = 0.2', "target", "no node or process `csr1-ue1`", "csr1"),
        ("starve", 'target = "csr1"\ncpu_ratio = 0.2\nperiod_ms = 1', "period_ms", "below 5", "from 5 to 1000"),
        ("login-outage", 'target = "csr1"', "target", "`csr1` is no login server", "leave it out"),
        ("login-outage", 'how = "explode"', "how", "is unknown", "crash"),
        ("drop", 'target = "core9"', "target", "no node `core9`", "core"),
        ("drop", 'target = "core1-core2"\nsender = "ue1"', "sender", "no packet from ue1 to any node", "core1"),
        ("drop", 'target = "csr1"\nreceiver = "ue3"', "receiver", "no packet from any node to ue3", "ue1"),
        ("drop", 'target = "csr1"\nreceiver = "ux3"', "receiver", "no node `ux3`", "ue3"),
        ("drop", 'target = "csr1"\nmessage = "sync"', "message", "no message type `sync`", "sync-update"),
        ("drop", 'target = "csr1"\nratio = 0', "ratio", "not above 0", "number"),
        ("drop", 'target = "csr1"\ncount = 0', "count", "below 1", "whole number"),
        ("drop", 'target = "csr1"\npredicate = "packet["', "predicate", "is no Python", "write Python such as"),
        ("drop", 'target = "csr1"\npredicate = "pakcet.x"', "predicate", "NameError", "did you mean `packet`"),
        ("drop", "target = \"csr1\"\nmessage = \"heartbeat\"\npredicate = 'packet[\"FpUpdate\"].seq'", "predicate", "fails on every heartbeat", "haslayer"),
        ("delay", 'target = "csr1"', "[[fault]] 1", "`delay_ms` is missing", "add `delay_ms"),
        ("forge", 'target = "csr1"\nedit = "import"', "edit", "is no Python", "seq += 1"),
        ("forge", 'target = "csr1"\nedit = "packet = 3"', "edit", "`packet` has become int", "layers"),
        ("inject", 'target = "csr1-ue1"\nsender = "ue1"', "[[fault]] 1", "nothing says what is sent", "file, hex and packet"),
        ("inject", 'target = "csr1-ue1"\nsender = "ue1"\nhex = ["05"]\npacket = "b\'x\'"', "[[fault]] 1", "hex and packet each", "one"),
        ("inject", 'target = "csr1-ue1"\nsender = "ue2"\nhex = ["05"]', "sender", "no end of csr1-ue1", "use csr1 or ue1"),
        ("inject", 'target = "csr1-ue1"\nhex = ["05"]', "[[fault]] 1", "`sender` is missing", "add `sender"),
        ("inject", 'target = "csr1-ue1"\nsender = "ue1"\nhex = ["zz"]', "hex", "not hexadecimal", "two digits"),
        ("inject", 'target = "csr1-ue1"\nsender = "ue1"\nhex = ["05"]\ntimes = 3', "times", "how far apart", "every_ms"),
        ("inject", 'target = "csr1-ue1"\nsender = "ue1"\nhex = ["05"]\nname = "/a"', "name", "there is none", "leave it out"),
        ("inject", 'target = "csr1-ue1"\nsender = "ue1"\nfile = "none.pcap"', "file", "there is no such file", "experiment file"),
        ("inject", 'target = "csr1-ue1"\nsender = "ue1"\npacket = "Intrest()"', "packet", "raises NameError", "expression"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused(kind: str, rest: str, place: str, problem: str, remedy: str) -> None:
    with pytest.raises(InputError) as caught:
        parsed(fault(kind, rest))
    assert place in caught.value.where
    assert caught.value.where.startswith("a.toml:")
    assert problem in caught.value.problem
    assert remedy in caught.value.remedy


@pytest.mark.parametrize(
    ("faults", "problem"),
    [
        (
            [fault("flap", 'target = "core1-core2"\nperiod_s = 1', for_s=4)] * 2,
            "[[fault]] 1 does the same to core1-core2 then (flap from 1 s to 5 s)",
        ),
        ([fault("isolate", 'target = "csr1"'), fault("isolate", 'target = "csr1"', at_s=5)], "isolate from 1 s on"),
        (
            [fault("black-hole", 'target = "core1-core2"'), fault("black-hole", 'target = "core2-core1"\nsender = "core2"')],
            "does the same to core1-core2",
        ),
        ([fault("starve", 'target = "csr1"\ncpu_ratio = 0.5')] * 2, "does the same to csr1"),
        ([fault("crash", 'target = "login"'), fault("login-outage", "", at_s=2)], "login.forwarder does not run at 2 s"),
        (
            [fault("freeze", 'target = "csr1"', for_s=5), fault("thaw", 'target = "csr1"', at_s=2)],
            "[[fault]] 1 already lets csr1 go on, at 6 s",
        ),
        (
            [fault("freeze", 'target = "csr1"'), fault("thaw", 'target = "csr1.proxy"', at_s=2)],
            "[[fault]] 1 has struck all of csr1",
        ),
        (
            [fault("crash", 'target = "csr1"'), fault("thaw", 'target = "csr1"', at_s=2)],
            "csr1 is not frozen at 2 s, but dead because of [[fault]] 1",
        ),
    ],
)  # fmt: skip
def test_what_contradicts_itself_is_refused(faults: list[str], problem: str) -> None:
    with pytest.raises(InputError) as caught:
        parsed(*faults)
    assert problem in caught.value.problem
    assert "[[fault]] 2" in caught.value.where


def test_what_goes_together_is_taken() -> None:
    parsed(
        fault("black-hole", 'target = "core1-core2"\nsender = "core1"'),
        fault("black-hole", 'target = "core1-core2"\nsender = "core2"'),
        fault("partition", 'target = "csr1"', for_s=3),
        fault("partition", 'target = "csr2"', for_s=3),
        fault("freeze", 'target = "csr1.proxy"'),
        fault("thaw", 'target = "csr1"', at_s=2),
        fault("crash", 'target = "csr1.proxy"', at_s=3),
        fault("restart", 'target = "csr1.proxy"', at_s=4),
        fault("crash", 'target = "csr1.proxy"', at_s=5, for_s=1),
    )


def test_a_partition_is_spelled_as_a_target_and_takes_devices_along() -> None:
    experiment = parsed(fault("partition", 'groups = [["csr1", "core1"], ["csr2"]]', for_s=1))
    (partition,) = experiment.faults
    assert partition.target == "csr1,core1/csr2"
    assert experiment.resolved["fault"][0]["target"] == "csr1,core1/csr2"
    assert "groups" not in experiment.resolved["fault"][0]
    assert as_injected("f1", partition).parameters == {}


def test_packets_stand_in_the_resolved_experiment_whole(tmp_path: Path) -> None:
    (tmp_path / "made.hex").write_text("050e07060801610801620a0400000007\n")
    inject = fault("inject", 'target = "ue1-csr1"\nsender = "ue1"\nfile = "made.hex"\nname = "/a/*"')
    resolved = parsed(inject, folder=tmp_path).resolved["fault"][0]
    assert resolved == {
        "kind": "inject", "at_s": 1.0, "target": "csr1-ue1", "sender": "ue1", "times": 1,
        "hex": ["050e07060801610801620a0400000007"],
    }  # fmt: skip


def test_only_code_needs_scapy() -> None:
    plain, code, forged = parsed(
        fault("drop", 'target = "*"\nname = "/hconf/*"'),
        fault("drop", 'target = "*"\npredicate = "packet.haslayer(Nack)"'),
        fault("forge", 'target = "*"\nedit = "pass"'),
    ).faults
    assert [needs_scapy(each) for each in (plain, code, forged)] == [False, True, True]


def test_every_kind_has_a_table_in_the_file() -> None:
    with pytest.raises(InputError) as caught:
        parsed(fault("no such", 'target = "a"'))
    missing = [kind for kind in FAULT_KINDS if f"`{kind}`" not in caught.value.remedy]
    assert missing == []

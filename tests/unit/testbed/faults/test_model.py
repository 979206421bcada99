from typing import Any

import pytest

from testbed.faults.model import Fault
from topologies.errors import InputError


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"kind": "link-dwn"}, r"no kind `link-dwn` \(fix: did you mean `link-down`"),
        ({"at_s": -1.0}, "at_s = -1.0"),
        ({"at_s": float("nan")}, "at_s = nan"),
        ({"for_s": 0.0}, "for_s = 0.0"),
        ({"for_s": float("inf")}, "for_s = inf"),
        ({"kind": "link-up", "for_s": 1.0}, "does not end by itself"),
        ({"parameters": {"delay_ms": 1.0}}, "`link-down` takes no delay_ms"),
        ({"kind": "impair"}, "changes nothing"),
        ({"kind": "impair", "parameters": {"dely_ms": 1.0}}, "did you mean `delay_ms`"),
        (
            {"kind": "impair", "parameters": {"loss_ratio": 5.0}},
            r"loss_ratio = 5.0 is out of range \(fix: give 0 to 1\)",
        ),
        ({"kind": "impair", "parameters": {"delay_ms": -0.1}}, "delay_ms = -0.1"),
        ({"kind": "impair", "parameters": {"delay_ms": float("nan")}}, "delay_ms = nan"),
        ({"kind": "impair", "parameters": {"rate_mbps": 0.0}}, "lets nothing through"),
        ({"kind": "impair", "parameters": {"queue_packets": 0}}, "lets nothing through"),
        ({"kind": "impair", "parameters": {"ramp_s": 1.0}}, "changes nothing"),
        ({"kind": "impair", "parameters": {"match": "udp"}}, "changes nothing"),
        ({"kind": "impair", "parameters": {"match": "udp port 9", "delay_ms": 1.0}}, "match: `port 9` in `udp port 9`"),
        ({"kind": "impair", "parameters": {"match": "udp", "mtu_bytes": 900}}, "mtu_bytes is of all frames"),
        ({"kind": "impair", "parameters": {"match": "udp", "delay_ms": 1.0, "ramp_s": 1.0}}, "ramp_s is of all frames"),
        ({"kind": "flap", "parameters": {"period_s": 1.0, "down_ratio": 0.5}}, "`flap` has no end"),
        ({"kind": "thaw", "target": "a", "for_s": 1.0}, "does not end by itself"),
        ({"kind": "black-hole", "sender": "c"}, "sender = c is no end"),
        ({"kind": "freeze", "target": "a", "sender": "a"}, "sender = a is no end"),
        ({"kind": "crash", "target": "a", "parameters": {"count": 1}}, "`crash` takes no count"),
    ],
)
def test_what_cannot_be_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        Fault(**{"fault_id": "f1", "kind": "link-down", "target": "a-b", **wrong})
    assert str(caught.value).startswith("fault f1: ")


@pytest.mark.parametrize(
    ("parameters", "for_s", "duration_s", "phases_s"),
    [
        ({"count": 2}, None, 2.0, [0.5, 1.0, 1.5]),
        ({"count": 2}, 1.2, 1.2, [0.5, 1.0]),
        ({}, 1.5, 1.5, [0.5, 1.0]),
        ({"down_ratio": 0.1, "count": 1}, None, 1.0, [0.1]),
    ],
)
def test_a_flap_ends_by_count_or_time(
    parameters: dict[str, float], for_s: float | None, duration_s: float, phases_s: list[float]
) -> None:
    fault = Fault("f1", "flap", "a-b", for_s=for_s, parameters={"period_s": 1.0, "down_ratio": 0.5} | parameters)
    assert fault.duration_s == duration_s
    assert list(fault.phases_s()) == phases_s


def test_a_ramp_takes_steps_of_a_tenth_of_a_second_at_most() -> None:
    steps_s = list(Fault("f1", "impair", "a-b", parameters={"delay_ms": 1.0, "ramp_s": 0.95}).phases_s())
    assert len(steps_s) == 10
    assert steps_s[-1] == 0.95
    assert max(later - earlier for earlier, later in zip([0.0, *steps_s], steps_s, strict=False)) <= 0.1


def test_an_injection_lasts_until_its_last_packet() -> None:
    fault = Fault("f1", "inject", "a-b", sender="a", parameters={"hex": ["05"], "times": 3, "every_ms": 250.0})
    assert list(fault.phases_s()) == [0.25, 0.5]
    assert fault.duration_s == 0.5

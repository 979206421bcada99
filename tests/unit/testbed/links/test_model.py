import dataclasses
from typing import Any

import msgspec
import pytest

from testbed.links.model import Impairment, impairment_of, impairments_of
from topologies.model import Link, LinkProperties

WRONG: list[tuple[str, Any]] = [
    ("delay_ms", -0.1),
    ("delay_ms", 60_000.1),
    ("delay_ms", float("nan")),
    ("jitter_ms", -1.0),
    ("jitter_ms", float("inf")),
    ("loss_ratio", 1.01),
    ("loss_ratio", -0.01),
    ("loss_ratio", float("nan")),
    ("rate_mbps", 0.0),
    ("rate_mbps", -1.0),
    ("rate_mbps", float("inf")),
    ("queue_packets", 0),
    ("queue_packets", 100_001),
    ("queue_bytes", 0),
    ("queue_bytes", 1_000_000_001),
    ("good_to_bad_ratio", 1.5),
    ("bad_to_good_ratio", -0.5),
    ("bad_loss_ratio", float("nan")),
    ("duplicate_ratio", 2.0),
    ("reorder_ratio", -1.0),
    ("corrupt_ratio", 1.1),
    ("late_max_ms", -1.0),
    ("late_max_ms", 60_001.0),
    ("jitter_distribution", "pareto"),
    ("mtu_bytes", 575),
    ("mtu_bytes", 9_001),
]


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_a_value_out_of_range_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name):
        Impairment(**{name: value})
    with pytest.raises(ValueError, match=name):
        LinkProperties(**{name: value})


def test_a_direction_is_given_every_property_of_its_link() -> None:
    """Both say the same with the same defaults; none is forgotten on the way."""
    there = {field.name: field.default for field in dataclasses.fields(LinkProperties)}
    assert there == dict(zip(Impairment.__struct_fields__, Impairment.__struct_defaults__, strict=True))
    others: dict[str, Any] = {
        name: {"uniform": "normal", True: False, None: 2_000}.get(value, 0.5 if isinstance(value, float) else 1_400)
        for name, value in there.items()
    }
    assert all(others[name] != value for name, value in there.items())
    properties, back = LinkProperties(**others), LinkProperties(**others | {"delay_ms": 7.0})
    assert msgspec.structs.asdict(impairment_of(properties)) == others
    a_to_b, b_to_a = impairments_of(Link("a-b", "a", "b", "core", properties, back))
    assert (a_to_b, b_to_a) == (impairment_of(properties), impairment_of(back))
    both = impairments_of(Link("a-b", "a", "b", "core", properties))
    assert both == (impairment_of(properties), impairment_of(properties))


@pytest.mark.parametrize(
    "raw", [b'{"loss_ratio": 2.0}', b'{"delay_ms": "5"}', b'{"delay": 5}', b'{"queue_packets": 1.5}', b"[]"]
)
def test_wrong_json_is_a_validation_error(raw: bytes) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(raw, type=Impairment)


@pytest.mark.parametrize("name", ["delay_ms", "jitter_ms"])
def test_the_ends_of_the_ranges_are_allowed(name: str) -> None:
    for value in (0.0, 60_000.0):
        assert getattr(Impairment(**{name: value}), name) == value  # type: ignore[arg-type]
    assert Impairment(loss_ratio=1.0, rate_mbps=0.001, queue_packets=100_000).loss_ratio == 1.0

from typing import Any

import msgspec
import pytest

from testbed.links.model import Impairment

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
]


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_a_value_out_of_range_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name):
        Impairment(**{name: value})


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

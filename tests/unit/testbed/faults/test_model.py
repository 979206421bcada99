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
    ],
)
def test_what_cannot_be_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        Fault(**{"fault_id": "f1", "kind": "link-down", "target": "a-b", **wrong})
    assert str(caught.value).startswith("fault f1: ")

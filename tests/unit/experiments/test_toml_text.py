from __future__ import annotations

import tomllib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from experiments.toml_text import to_toml

values = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
tables = st.dictionaries(st.text(), values, min_size=1, max_size=4)


@given(one=tables, many=st.lists(tables, min_size=1, max_size=3), links=st.dictionaries(st.text(), tables, min_size=1))
def test_what_is_written_is_read_back(one: dict[str, Any], many: list[dict[str, Any]], links: dict[str, Any]) -> None:
    file = {"experiment": one, "links": links, "fault": many}
    assert tomllib.loads(to_toml(file, comment="one\n\ntwo\x1b")) == file


def test_tables_are_sections_and_empty_ones_are_left_out() -> None:
    file = {
        "topology": {"name": "tiers"},
        "links": {"access": {"delay_ms": 4.0}, "core": {}},
        "clocks": {},
        "fault": [],
    }
    assert to_toml(file, comment="why") == ('# why\n\n[topology]\nname = "tiers"\n\n[links.access]\ndelay_ms = 4.0\n')

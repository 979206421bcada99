"""No experiment file, however wrong, ends with anything but an Experiment or an InputError."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from experiments import spec
from experiments.spec import load_experiment
from experiments.spec_messages import checked
from experiments.spec_overrides import apply_override
from experiments.spec_places import KeyPath, Source, key_lines
from experiments.spec_schema import ExperimentFile
from topologies.errors import InputError

QUICKSTART = Path(spec.__file__).with_name("quickstart.toml")
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.dates(), st.just("ue1"), st.just(0.5)
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)


def refusal_of(load: Callable[[], object]) -> InputError | None:
    """Return the InputError that *load* raises, None if it raises nothing; anything else is a bug and passes through."""
    try:
        load()
    except InputError as error:
        return error
    return None


def paths_of(value: Any, path: KeyPath = ()) -> list[KeyPath]:
    """Return the path of everything in *value*."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, item in items for found in ((*path, key), *paths_of(item, (*path, key)))]


@settings(max_examples=300)
@given(st.data())
def test_any_value_anywhere_is_accepted_or_refused(data: st.DataObject) -> None:
    tables = tomllib.loads(QUICKSTART.read_text())
    for _ in range(data.draw(st.integers(1, 2))):
        path = data.draw(st.sampled_from(paths_of(tables)))
        holder: Any = tables
        for step in path[:-1]:
            holder = holder[step]
        holder[path[-1]] = data.draw(VALUES.filter(lambda value: value is not None))
    refused = refusal_of(lambda: checked(tables, ExperimentFile, Source("a.toml"), ()))
    # A cause means that msgspec found what our rules, and so our messages, missed.
    assert refused is None or refused.__cause__ is None


@settings(max_examples=100)
@given(st.text(max_size=40))
def test_any_override_is_accepted_or_refused(override: str) -> None:
    refused = refusal_of(
        lambda: load_experiment(QUICKSTART, [override, f"experiment.seed={override}", f"fault.1.{override}"])
    )
    assert refused is None or refused.where.startswith("--set")


KEYS = st.text(alphabet="ab-_.\"'é #=[", min_size=1, max_size=4)


def quoted(key: str) -> str:
    escaped = key.replace("\\", "\\\\").replace('"', '\\"')
    return key if key.replace("-", "").replace("_", "").isascii() and key.isalnum() else f'"{escaped}"'


VALUE_TEXTS = st.sampled_from(
    ["1", '"x # [ y"', "'it\\'", "[1, # one\n 2,\n]", '"""a\n[b]\n# c\n"d"\n"""', "'''\n[[e]]\n'''", '{ a = "}" }']
)


@settings(max_examples=200)
@given(
    st.dictionaries(KEYS, st.lists(st.dictionaries(KEYS, VALUE_TEXTS, max_size=3), min_size=1, max_size=2), max_size=3)
)
def test_every_key_is_found_on_its_line(tables: dict[str, list[dict[str, str]]]) -> None:
    lines: list[str] = []
    expected: dict[KeyPath, int] = {}
    for table, entries in tables.items():
        for index, entry in enumerate(entries):
            expected[table, index] = len(lines) + 1
            lines.append(f"[[{quoted(table)}]] # comment [ \" '")
            for key, value in entry.items():
                expected[table, index, key] = len(lines) + 1
                lines.extend(f"{quoted(key)} = {value}  # = [".split("\n"))
    text = "\n".join(lines)
    tomllib.loads(text)
    found = key_lines(text)
    assert {path: found.get(path) for path in expected} == expected


@given(st.lists(KEYS, min_size=2, max_size=4), st.integers())
def test_an_override_sets_exactly_its_key(keys: list[str], value: int) -> None:
    data: dict[str, Any] = {}
    path = apply_override(data, ".".join(quoted(key) for key in keys) + f"={value}")
    assert path == tuple(keys)
    assert paths_of(data)[-1] == path
    found: Any = data
    for key in keys:
        found = found[key]
    assert found == value

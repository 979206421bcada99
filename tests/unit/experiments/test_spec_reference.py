"""The published reference and schema say what the code checks; nothing of them is written by hand."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import inspect

from experiments import spec_json_schema, spec_reference
from experiments.spec_json_schema import json_schema, schema_text
from experiments.spec_messages import verify
from experiments.spec_places import Source
from experiments.spec_reference import meanings, reference_page, tables_of, toml_value
from experiments.spec_schema import ExperimentFile

ROOT = Path(spec_reference.__file__).resolve().parents[1]
FILES = sorted((ROOT / "experiments").glob("*.toml"))
SCHEMA = json_schema()

Structs = list[tuple[str, type]]


def structs() -> Structs:
    return [(struct.__name__, struct) for struct in spec_json_schema.structs()]


def test_the_published_files_are_those_of_the_code() -> None:
    remedy = "run `hconf check --reference > docs/experiment-file.md` and `hconf check --schema > docs/experiment-file.schema.json`"
    assert (ROOT / "docs" / "experiment-file.md").read_text("utf-8") == reference_page(), remedy
    assert (ROOT / "docs" / "experiment-file.schema.json").read_text("utf-8") == schema_text(), remedy


def test_every_key_is_there_with_meaning_default_and_an_example_that_is_right() -> None:
    shown: set[str] = set()
    for section in ExperimentFile.__struct_fields__:
        for table in tables_of(section):
            for key in table.keys:
                where = f"{section} {table.title}: {key.name}"
                assert key.meaning, f"{where}: write a `#:` comment at the field"
                assert key.default
                assert tomllib.loads(f"x = {toml_value(key.example)}")["x"] == key.example, where
                shown.add(key.name)
    for name, struct in structs():
        for field in struct_fields(struct):
            assert field.encode_name in shown or struct is ExperimentFile, f"{name}.{field.encode_name}"


def test_every_example_is_one_that_the_key_takes() -> None:
    root = inspect.type_info(ExperimentFile)
    assert isinstance(root, inspect.StructType)
    tables = [(field.encode_name, struct) for field in root.fields for struct in structs_in(field.type)]
    tables += [
        ("topology", info)
        for _, type_, _ in spec_reference.topology_sources()
        for info in structs_in(inspect.type_info(type_))
    ]
    assert len(tables) > 40
    for section, info in tables:
        keys = {key.name: key for key in spec_reference.keys_of(info.cls, section, str(info.tag) if info.tag else None)}
        for field in info.fields:
            verify(keys[field.encode_name].example, field.type, Source(info.cls.__name__), (field.encode_name,))


def structs_in(rule: inspect.Type) -> Iterator[inspect.StructType]:
    match rule:
        case inspect.StructType():
            yield rule
        case inspect.UnionType():
            for option in rule.types:
                yield from structs_in(option)
        case inspect.VarTupleType():
            yield from structs_in(rule.item_type)
        case inspect.DictType():
            yield from structs_in(rule.value_type)


def struct_fields(struct: type) -> tuple[inspect.Field, ...]:
    info = inspect.type_info(struct)
    assert isinstance(info, inspect.StructType)
    return info.fields


def test_comments_are_found_wherever_they_stand() -> None:
    class Sample:
        above: int
        #: over it,
        #: in two lines
        below: int = 1
        behind: int = 2  #: at its end
        wrapped: int = 3  #: inside
        both: int = 4  #: second
        none: int = 5  # not one of ours

    found = spec_reference._comments(Sample)
    assert found == {
        "above": "", "below": "over it, in two lines", "behind": "at its end", "wrapped": "inside", "both": "second", "none": "",
    }  # fmt: skip


def test_a_kind_says_what_its_base_says() -> None:
    from experiments.spec_workloads import PoissonWorkload, WhiteboardWorkload  # noqa: PLC0415

    assert meanings(PoissonWorkload)["rate_per_s"].startswith("updates per second")
    assert meanings(WhiteboardWorkload)["size_bytes"].startswith("body of one update: some points")


# ---------------------------------------------------------------------- JSON schema


def complaints(value: Any, schema: dict[str, Any], at: str = "") -> Iterator[str]:
    """Yield what *schema* has against *value*: those words of JSON Schema that ours uses, and no others."""
    known = {
        *("$ref", "$schema", "$defs", "title", "description", "default", "examples", "discriminator", "format"),
        *("type", "enum", "const", "anyOf", "properties", "required", "additionalProperties", "items", "pattern"),
        *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "minLength", "maxLength", "minItems", "propertyNames"),
    }  # fmt: skip
    assert schema.keys() <= known, schema.keys() - known
    if "$ref" in schema:
        yield from complaints(value, SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]], at)
    if "anyOf" in schema and all(list(complaints(value, option, at)) for option in schema["anyOf"]):
        yield f"{at}: fits none of {len(schema['anyOf'])}"
    types: dict[str, Any] = {
        "object": dict,
        "array": list,
        "string": str,
        "number": (int, float),
        "integer": int,
        "boolean": bool,
    }
    if "type" in schema and not isinstance(value, types[schema["type"]]):
        yield f"{at}: no {schema['type']}"
        return
    if "enum" in schema and value not in schema["enum"]:
        yield f"{at}: not one of {schema['enum']}"
    if isinstance(value, dict):
        yield from _of_object(value, schema, at)
    elif isinstance(value, list):
        if len(value) < schema.get("minItems", 0):
            yield f"{at}: too short"
        for index, item in enumerate(value):
            yield from complaints(item, schema.get("items", {}), f"{at}[{index}]")
    elif isinstance(value, str):
        if not re.search(schema.get("pattern", ""), value) or len(value) < schema.get("minLength", 0):
            yield f"{at}: wrong form"
    elif isinstance(value, int | float) and not (
        schema.get("minimum", value) <= value <= schema.get("maximum", value)
        and value > schema.get("exclusiveMinimum", value - 1)
        and value < schema.get("exclusiveMaximum", value + 1)
    ):
        yield f"{at}: out of range"


def _of_object(value: dict[str, Any], schema: dict[str, Any], at: str) -> Iterator[str]:
    properties, others = schema.get("properties", {}), schema.get("additionalProperties", True)
    yield from (f"{at}: lacks {key}" for key in schema.get("required", ()) if key not in value)
    for key, item in value.items():
        if key in properties:
            yield from complaints(item, properties[key], f"{at}.{key}")
        elif others is False:
            yield f"{at}: knows no {key}"
        elif isinstance(others, dict):
            yield from complaints(item, others, f"{at}.{key}")


@pytest.mark.parametrize("file", FILES, ids=[file.stem for file in FILES])
def test_the_schema_takes_every_file_that_comes_with_hconf(file: Path) -> None:
    assert list(complaints(tomllib.loads(file.read_text("utf-8")), SCHEMA)) == []


GOOD = '[experiment]\nname = "x"\nduration_s = 5\n[topology]\nname = "tiers"\n'


@pytest.mark.parametrize(
    "wrong",
    [
        GOOD.replace("5", "0"),
        GOOD.replace("5", '"5"'),
        GOOD.replace("duration_s = 5\n", ""),
        GOOD + "cors = 3\n",
        GOOD.replace("tiers", "a.conf") + "cores = 3\n",
        GOOD + '[[workload]]\nkind = "poison"\n',
        GOOD + '[[workload]]\nkind = "poisson"\nrate_per_s = 1\non_s = 3\n',
        GOOD + "[links.core]\nloss_ratio = 5\n",
        GOOD + '[[fault]]\nkind = "link-down"\nat_s = 1\n',
    ],
)
def test_the_schema_refuses_what_the_checks_refuse(wrong: str) -> None:
    assert list(complaints(tomllib.loads(GOOD), SCHEMA)) == []
    assert list(complaints(tomllib.loads(wrong), SCHEMA))


@pytest.mark.parametrize(
    "name", ["tiers", "topozoo/Abilene", "nets/a.conf", "a.graphml", "/x/y.py", "sndlib/germany50"]
)
def test_a_network_is_told_by_its_name(name: str) -> None:
    by_name: dict[str, dict[str, Any]] = {
        "tiers": {"cores": 4},
        "a.graphml": {"delay_key": "x"},
        "/x/y.py": {"topo": "x"},
    }
    parameters = by_name.get(name, {"csrs": 2})
    text = {"experiment": {"name": "x", "duration_s": 5}, "topology": {"name": name, **parameters}}
    assert list(complaints(text, SCHEMA)) == []
    fitting = [
        one
        for one in SCHEMA["$defs"]["ExperimentFile"]["properties"]["topology"]["anyOf"]
        if not list(complaints(text["topology"], one))
    ]
    assert len(fitting) == 1


def test_there_is_no_null_and_no_reference_to_nowhere() -> None:
    text = json.dumps(SCHEMA)
    assert '"null"' not in text
    assert set(re.findall(r"#/\$defs/(\w+)", text)) <= SCHEMA["$defs"].keys()

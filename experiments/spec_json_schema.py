"""The JSON schema of experiment files, for editors: made from the structs that check them, with the meanings of spec_reference.py.

hconf check --schema > docs/experiment-file.schema.json
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec
from msgspec import inspect

from experiments.spec_reference import MEANT_EVERYWHERE, meanings, prose, sentence, topology_sources
from experiments.spec_schema import ExperimentFile

SCHEMA_URI: Final = "https://json-schema.org/draft/2020-12/schema"


def json_schema() -> dict[str, Any]:
    """Return the JSON schema (draft 2020-12) of an experiment file, with meanings and examples."""
    sources = topology_sources()
    types: list[Any] = [ExperimentFile, *(type_ for _, type_, _ in sources)]
    (root, *_), components = msgspec.json.schema_components(types, ref_template="#/$defs/{name}")
    documented = {type_.__name__: type_ for type_ in structs()}
    for name, component in components.items():
        if name in documented:
            _document(component, documented[name])
    choices = [_topology_choice(components[type_.__name__], pattern) for _, type_, pattern in sources]
    components["ExperimentFile"]["properties"]["topology"] = {"anyOf": choices}
    used = {
        name: _without_null(part)
        for name, part in components.items()
        if name not in {t.__name__ for _, t, _ in sources}
    }
    return {
        "$schema": SCHEMA_URI,
        "title": "Experiment file of hconf",
        **root,
        "$defs": dict(sorted(used.items())),
    }


def schema_text() -> str:
    """Return `json_schema` as text."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def structs() -> Iterator[type]:
    """Yield every struct that a table of the file is read into."""
    seen: set[type] = set()

    def visit(rule: inspect.Type) -> Iterator[type]:
        match rule:
            case inspect.StructType() if rule.cls not in seen:
                seen.add(rule.cls)
                yield rule.cls
                for field in rule.fields:
                    yield from visit(field.type)
            case inspect.Metadata():
                yield from visit(rule.type)
            case inspect.UnionType():
                for option in rule.types:
                    yield from visit(option)
            case inspect.VarTupleType():
                yield from visit(rule.item_type)
            case inspect.DictType():
                yield from visit(rule.value_type)
            case _:
                pass

    yield from visit(inspect.type_info(ExperimentFile))
    for _, parameters, _ in topology_sources():
        yield from visit(inspect.type_info(parameters))


def _document(component: dict[str, Any], struct: type) -> None:
    """Add meanings to the properties of one definition."""
    component["description"] = " ".join(prose(struct).split())
    info = inspect.type_info(struct)
    assert isinstance(info, inspect.StructType)
    comments = meanings(struct)
    for field in info.fields:
        said = sentence(comments.get(field.name, "") or MEANT_EVERYWHERE.get(field.encode_name, ""))
        shown = component["properties"][field.encode_name]
        if said and "$ref" not in shown:
            shown["description"] = said


def _topology_choice(component: Mapping[str, Any], pattern: str) -> dict[str, Any]:
    """Return one source of networks, told apart by its name."""
    name = {"type": "string", "pattern": pattern, "description": "Where the network comes from."}
    properties = {"name": name} | {key: _without_null(value) for key, value in component["properties"].items()}
    return {**component, "properties": properties, "required": ["name", *component.get("required", ())]}


def _without_null(part: Any) -> Any:  # noqa: ANN401 - JSON
    """Return a part of a schema without null, which TOML has not."""
    match part:
        case dict():
            kept = {
                key: _without_null(value) for key, value in part.items() if not (key == "default" and value is None)
            }
            options = [option for option in kept.get("anyOf", ()) if option != {"type": "null"}]
            if "anyOf" in kept and len(options) == 1:
                del kept["anyOf"]
                return options[0] | kept
            return kept | ({"anyOf": options} if options else {})
        case list():
            return [_without_null(item) for item in part]
        case _:
            return part

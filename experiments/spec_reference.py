"""The reference of experiment files, made from the structs that check them: a page for people (for editors: spec_json_schema.py).

Nothing is written here a second time: keys, ranges and defaults are those of the structs, meanings are their ``#:`` comments and
docstrings, examples come from the experiment files that hconf has, where one uses the key.

    hconf check --reference > docs/experiment-file.md
"""

from __future__ import annotations

import ast
import functools
import inspect as python_inspect
import io
import json
import re
import textwrap
import tokenize
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import NODEFAULT, inspect

from experiments.spec_messages import describe, unit_of, verify
from experiments.spec_places import Source
from experiments.spec_schema import ExperimentFile, Impair, OneWaySection
from topologies.catalogue import FILE_SOURCES
from topologies.errors import InputError
from topologies.model import LinkProperties
from topologies.tiers import NAME as TIERS_NAME
from topologies.tiers import TiersParameters
from topologies.topohub_source import TopohubParameters

#: What keys mean that mean the same everywhere.
MEANT_EVERYWHERE: Final = {
    "at_s": "When it begins, from the start of the run.",
    "for_s": "How long it lasts; without it, as said above.",
    "kind": "Which kind it is.",
    "sync_interest_lifetime_s": "How long a sync Interest stays pending before it is sent anew.",
}
#: For keys that no experiment file of hconf uses, and that have no default.
_EXAMPLES: Final[dict[str, Any]] = {
    "match": "udp dst-port 6363",
    "after_ms": 500.0,
    "arguments": {"hosts": 12},
    "at_least": 0.99,
    "away_s": 10.0,
    "backend": "wire",
    "bits": 3,
    "cpu_ratio": 0.1,
    "count": 3,
    "default_delay_ms": 5.0,
    "delay_key": "latency",
    "edit": 'packet["FpUpdate"].seq += 1',
    "equals": 0,
    "every_ms": 100.0,
    "every_s": 30.0,
    "file": "trace.csv",
    "focus": "Chicago",
    "from": {"csr1": {"delay_ms": 20.0}},
    "groups": [["csr1", "core1"], ["csr2", "core2"]],
    "hex": ["0500"],
    "jitter_distribution": "normal",
    "jitter_keeps_order": False,
    "late_max_ms": 10.0,
    "leave_at_s": 20.0,
    "login_node": "Chicago",
    "message": "push,sync-update",
    "name": "/hconf/csr1/32=sync/*",
    "packet": 'bytes.fromhex("0500")',
    "period_s": 2.0,
    "predicate": 'packet.haslayer("FpUpdate")',
    "proxy_ues": ["ue7"],
    "queue_bytes": 65_536,
    "queue_packets": 100,
    "mtu_bytes": 1_400,
    "others": {"side": ["ue3", "ue4"]},
    "receiver": "csr1",
    "sender": "csr1",
    "skew_ppm": {"csr1": 300, "ue2": -500},
    "slides": 20,
    "strategies": {"/hconf/media/live": "multicast"},
    "text": "Good morning",
    "topo": "mine",
    "unreliable": ["/hconf/media"],
    "ues_at": {"Chicago": 20},
    "ues_per_csr": 3,
    "ues_per_edge_network": 3,
    "zipf_exponent": 1.0,
}
_BY_SUFFIX: Final = (("_ratio", 0.01), ("_ms", 10.0), ("_s", 5.0), ("_mbps", 10.0))

_INTRODUCTION: Final = """\
# Experiment files

One TOML file says everything about an experiment. This page is made from the code that checks the file (`hconf check --reference`),
and so is [the JSON schema](experiment-file.schema.json) (`hconf check --schema`), with which editors complete and check TOML:
`#:schema docs/experiment-file.schema.json` in the first line of a file is what [Taplo](https://taplo.tamasfe.dev) looks for.

```toml
[experiment]
name = "my-experiment"
duration_s = 30

[topology]
name = "tiers"

[[workload]]
kind = "poisson"
rate_per_s = 1.0
```

`hconf check FILE` says what is wrong with a file and starts nothing; `--set table.key=value` replaces a key
(`--set workload.1.rate_per_s=5` one of the first workload). A table in `[single]` brackets stands once, one in `[[double]]` brackets as often as
you like. Names of units end the names of keys; times count from the start of the run; ratios are fractions, not percentages.
*Required* keys have no default; of the others, one that says *none* is just not there unless it is given.
"""


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a table."""

    name: str
    value: str  #: what it may be, in words
    unit: str  #: empty: none
    default: str  #: as in TOML; ``required``; ``none``
    example: Any
    meaning: str


@dataclass(frozen=True)
class Table:
    """One table of the file, or one kind of an entry of a list of tables."""

    title: str
    text: str
    keys: Sequence[Key]


def reference_page() -> str:
    """Return the page, as Markdown."""
    parts = [_INTRODUCTION]
    for section in ExperimentFile.__struct_fields__:
        parts.append(f"## {_heading(section)}\n")
        for table in tables_of(section):
            if table.title:
                parts.append(f"### {table.title}\n")
            if table.text:
                parts.append(f"{table.text}\n")
            if table.keys:
                parts.append(_markdown(table.keys))
    return "\n".join(parts)


def tables_of(section: str) -> Iterator[Table]:
    """Yield the tables of one section of the file: what all kinds have in common first, then one for each kind."""
    if section == "topology":
        yield from _topology_tables()
        return
    struct = inspect.type_info(ExperimentFile)
    assert isinstance(struct, inspect.StructType)
    rule = next(field.type for field in struct.fields if field.encode_name == section)
    match rule:
        case inspect.VarTupleType(item_type=inspect.UnionType(types=options)):
            kinds = [option for option in options if isinstance(option, inspect.StructType)]
            yield from _kinds(section, kinds)
        case inspect.VarTupleType(item_type=inspect.StructType() as item):
            yield Table("", prose(item.cls), keys_of(item.cls, section))
        case inspect.DictType(value_type=inspect.StructType() as item):
            yield Table("", prose(item.cls), keys_of(item.cls, section))
            one_way = f"[{section}.<tier>.from.<role>] and [{section}.<link>.from.<end>]"
            yield Table(f"`{one_way}`", prose(OneWaySection), ())
        case inspect.StructType():
            yield Table("", prose(rule.cls), keys_of(rule.cls, section))
        case _:
            raise AssertionError(f"{section} is of no form that the reference knows")


def keys_of(struct: type, section: str, kind: str | None = None) -> list[Key]:
    """Return the keys of a struct, but for its tag."""
    info = inspect.type_info(struct)
    assert isinstance(info, inspect.StructType)
    comments = meanings(struct)
    return [_key(field, comments.get(field.name, ""), section, kind) for field in info.fields]


@functools.cache
def meanings(struct: type) -> dict[str, str]:
    """Return what the ``#:`` comments of a class and its bases say of each field, by the field's name in Python."""
    found: dict[str, str] = {}
    for base in reversed(struct.__mro__):
        if base.__module__.partition(".")[0] in ("experiments", "topologies", "testbed", "tests"):
            found |= {name: said for name, said in _comments(base).items() if said or name not in found}
    if issubclass(struct, OneWaySection | Impair):
        of_link = _comments(LinkProperties)
        found = {name: of_link.get(name) or said for name, said in found.items()}
    return found


def _comments(struct: type) -> dict[str, str]:
    """Return the comments of one class body, by field; the empty string for a field without one."""
    source = textwrap.dedent(python_inspect.getsource(struct))
    by_line = {
        token.start[0]: token.string.removeprefix("#:").strip()
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT and token.string.startswith("#:")
    }
    lines = source.splitlines()
    definition = ast.parse(source).body[0]
    assert isinstance(definition, ast.ClassDef)
    said: dict[str, str] = {}
    for statement in definition.body:
        if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name):
            continue
        above = statement.lineno - 1
        while lines[above - 1].lstrip().startswith("#:"):
            above -= 1
        end = statement.end_lineno or statement.lineno
        said[statement.target.id] = " ".join(by_line[line] for line in range(above + 1, end + 1) if line in by_line)
    return said


def _key(field: inspect.Field, comment: str, section: str, kind: str | None) -> Key:
    name = field.encode_name
    meaning = comment or MEANT_EVERYWHERE.get(name, "") or _described(field.type)
    return Key(
        name=name,
        value=_value(field.type),
        unit=_unit(name),
        default=_default(field),
        example=_example(field, section, kind),
        meaning=sentence(meaning),
    )


def _default(field: inspect.Field) -> str:
    if field.required:
        return "required"
    default = field.default_factory() if field.default is NODEFAULT else field.default
    return "none" if default is None else toml_value(msgspec.to_builtins(default))


def _example(field: inspect.Field, section: str, kind: str | None) -> Any:  # noqa: ANN401 - any TOML value
    """Return a value for the key: of an experiment file, else of the table above, else the default, else of its unit."""
    name = field.encode_name
    for wanted in dict.fromkeys((kind, None)):
        if (used := _used(section, wanted, name)) is not None and _fits(used, field.type):
            return used
    default = None
    if not field.required:
        default = field.default_factory() if field.default is NODEFAULT else field.default
    if default not in (None, "", (), {}, []):
        return msgspec.to_builtins(default)
    if name in _EXAMPLES:
        return _EXAMPLES[name]
    rule = _plain(field.type)
    if isinstance(rule, inspect.LiteralType):
        return rule.values[0]
    if isinstance(rule, inspect.BoolType):
        return True
    if isinstance(rule, inspect.IntType | inspect.FloatType):
        by_unit = next((value for suffix, value in _BY_SUFFIX if name.endswith(suffix)), 10.0)
        return int(by_unit) if isinstance(rule, inspect.IntType) else by_unit
    if isinstance(rule, inspect.VarTupleType):
        return ["ue1", "ue2"]
    return {} if isinstance(rule, inspect.DictType) else "ue1"


def _fits(value: object, rule: inspect.Type) -> bool:
    """Tell whether a key that another kind has as well takes its value here, too."""
    try:
        verify(value, rule, Source(""), ())
    except InputError:
        return False
    return True


@functools.cache
def _own_files() -> list[dict[str, Any]]:
    """Return the experiment files that come with hconf."""
    return [tomllib.loads(path.read_text("utf-8")) for path in sorted(Path(__file__).parent.glob("*.toml"))]


def _used(section: str, kind: str | None, key: str) -> Any:  # noqa: ANN401 - any TOML value
    for file in _own_files():
        table = file.get(section, {})
        entries = table if isinstance(table, list) else list(table.values()) if section == "links" else [table]
        for entry in entries:
            if key in entry and (kind is None or entry.get("kind") == kind):
                return entry[key]
    return None


# ---------------------------------------------------------------------- kinds and topologies


def _kinds(section: str, kinds: Sequence[inspect.StructType]) -> Iterator[Table]:
    tables = {str(kind.tag): (kind.cls, keys_of(kind.cls, section, str(kind.tag))) for kind in kinds}
    common = _common([keys for _, keys in tables.values()])
    names = ", ".join(f"`{kind}`" for kind in tables)
    yield Table("", f"Each has a `kind`: {names}.", ())
    if common:
        yield Table("Every kind", "", common)
    shown = {key.name for key in common}
    for kind, (cls, keys) in tables.items():
        yield Table(f'`kind = "{kind}"`', prose(cls), [key for key in keys if key.name not in shown])


def _common(tables: Sequence[Sequence[Key]]) -> list[Key]:
    """Return the keys that all have, with the same meaning; the example of the first."""
    first, *others = tables

    def said(key: Key) -> tuple[str, ...]:
        return (key.name, key.value, key.unit, key.default, key.meaning)

    rest = [{said(key) for key in table} for table in others]
    return [key for key in first if all(said(key) in table for table in rest)]


def topology_sources() -> list[tuple[str, type, str]]:
    """Return (title, parameters, pattern of the names) of everything that a network can come from."""
    sources: list[tuple[str, type, str]] = [
        (f'`name = "{TIERS_NAME}"`', TiersParameters, f"^{TIERS_NAME}$"),
        ("A network of topohub", TopohubParameters, r"^[A-Za-z0-9_-]+/.*(?<!\.graphml)(?<!\.conf)(?<!\.py)$"),
    ]
    for suffix, (parameters, _) in FILE_SOURCES.items():
        sources.append((f"A file: `{suffix}`", parameters, rf"\{suffix}$"))
    return sources


def _topology_tables() -> Iterator[Table]:
    name = Key(
        "name", "text in double quotes", "", "required", "topozoo/Abilene", "Where the network comes from, see below."
    )
    yield Table(
        "",
        "Routers, CSRs, UEs and a login server. `hconf topo list` has names; `hconf topo show NAME` shows one.",
        [name],
    )
    tables = [(title, type_, keys_of(type_, "topology")) for title, type_, _ in topology_sources()]
    placed = [keys for _, type_, keys in tables if type_ is not TiersParameters]
    common = _common(placed)
    shown = {key.name for key in common}
    for title, type_, keys in tables:
        mine = keys if type_ is TiersParameters else [key for key in keys if key.name not in shown]
        source = python_inspect.getmodule(type_)
        about = (source.__doc__ or "") if source is not None and type_ is not TiersParameters else ""
        yield Table(title, "\n\n".join(part for part in (prose(type_), _paragraphs(about)) if part), mine)
    yield Table("Where CSRs and UEs go, in a network of topohub or from a file", "", common)


# ---------------------------------------------------------------------- words


def _heading(section: str) -> str:
    struct = inspect.type_info(ExperimentFile)
    assert isinstance(struct, inspect.StructType)
    rule = next(field.type for field in struct.fields if field.encode_name == section)
    if section == "links":
        return '`[links.<tier>]`, `[links."<a>-<b>"]`'
    return f"`[[{section}]]`" if isinstance(rule, inspect.VarTupleType) else f"`[{section}]`"


def prose(struct: type) -> str:
    """Return the docstring of a table without the name of the table that it begins with."""
    return _paragraphs(re.sub(r"^``\[.*?\]``(?: or ``\[.*?\]``)*:? ?", "", struct.__doc__ or ""))


def _paragraphs(text: str) -> str:
    cleaned = python_inspect.cleandoc(text).replace("``", "`")
    paragraphs = [_capital(part) for part in cleaned.split("\n\n") if part.strip()]
    return "\n\n".join(paragraphs)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def sentence(text: str) -> str:
    """Return a comment as a sentence: None is a key that is not there.

    >>> sentence("UEs; None: all of ``csr1``")
    'UEs; without it: all of `csr1`.'
    """
    said = re.sub(r"(^|[.:] )None: ", r"\1Without it: ", text.lstrip("… "))
    said = _capital(re.sub(r"\bNone: ", "without it: ", said).replace("``", "`").strip())
    return said if not said or said[-1] in ".…!" else f"{said}."


def _described(rule: inspect.Type) -> str:
    """Return what the type itself says, where it says something."""
    match rule:
        case inspect.Metadata():
            return str((rule.extra_json_schema or {}).get("description", "")) or _described(rule.type)
        case inspect.UnionType():
            return next((said for option in rule.types if (said := _described(option))), "")
        case _:
            return ""


def _plain(rule: inspect.Type) -> inspect.Type:
    """Return the type of a value that is there, without what is said about it."""
    match rule:
        case inspect.Metadata():
            return _plain(rule.type)
        case inspect.UnionType():
            return _plain(next(option for option in rule.types if not isinstance(option, inspect.NoneType)))
        case _:
            return rule


def _value(rule: inspect.Type) -> str:
    """Return what a value may be, in words."""
    plain = _plain(rule)
    match plain:
        case inspect.BoolType():
            return "true or false"
        case inspect.VarTupleType():
            return f"a list of {_plural(plain.item_type)}"
        case inspect.DictType():
            return f"a table of {_plural(plain.value_type)}"
        case inspect.AnyType():
            return "any value"
        case _:
            return describe(plain).replace("in double quotes", "").strip()


def _plural(rule: inspect.Type) -> str:
    plain = _plain(rule)
    if isinstance(plain, inspect.FloatType | inspect.IntType):
        return _value(plain).replace("a whole number", "whole numbers").replace("a number", "numbers")
    if isinstance(plain, inspect.VarTupleType):
        return "lists"
    return (
        "names"
        if isinstance(plain, inspect.StrType)
        else "tables"
        if isinstance(plain, inspect.StructType)
        else "values"
    )


def _unit(name: str) -> str:
    if name.endswith("_ppm"):
        return "parts per million"
    return "fraction" if name.endswith("_ratio") else unit_of(name) or ""


def toml_value(value: object) -> str:
    """Return a value as TOML has it on one line.

    >>> toml_value(["ue1"]), toml_value({"a": 1.5}), toml_value(True)
    ('["ue1"]', '{ a = 1.5 }', 'true')
    """
    match value:
        case Mapping():
            inside = ", ".join(f"{_bare(str(key))} = {toml_value(item)}" for key, item in value.items())
            return f"{{ {inside} }}" if inside else "{}"
        case list() | tuple():
            return f"[{', '.join(map(toml_value, value))}]"
        case int() if not isinstance(value, bool) and abs(value) >= 10_000:
            return f"{value:_}"
        case _:
            return json.dumps(value, ensure_ascii=False)


def _bare(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else json.dumps(key)


def _markdown(keys: Sequence[Key]) -> str:
    lines = ["| key | value | unit | default | example | meaning |", "|---|---|---|---|---|---|"]
    for key in keys:
        default = key.default if key.default in ("required", "none") else f"`{key.default}`"
        example = f"`{key.name} = {toml_value(key.example)}`"
        cells = (f"`{key.name}`", key.value, key.unit, default, example, key.meaning)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"

"""``fault KIND TARGET key=value ...``: one line of the shell as an entry of ``[[fault]]``.

Kinds, keys, units and ranges are those of the structs in `experiments.spec_schema`, and the rules between faults those of
`experiments.spec_checks`: what the shell takes, an experiment file takes, and what a file may say can be typed.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast, get_args

import msgspec
from msgspec import inspect

from experiments.spec_backends import check_faults_of_netem
from experiments.spec_checks import check_faults
from experiments.spec_messages import checked, describe
from experiments.spec_places import KeyPath, Source
from experiments.spec_schema import ExperimentSection, Fault
from testbed.faults.packets.view import MESSAGE_WORDS
from testbed.faults.targets import ALL_LINKS, MESSAGE_KINDS, PROCESS_EVENTS, PROCESS_KINDS
from topologies.errors import InputError, pick_one_of
from topologies.model import Topology

WHERE: Final = "fault"

#: A shell has no end that is known; longer than any moment that a file may name.
NO_END_S: Final = 86_400.0

#: In a value: between the items of a list, and between the lists of a list of them.
ITEM_SEPARATOR, LIST_SEPARATOR = ",", "/"


def _structs_of(union: Any) -> Iterator[type[msgspec.Struct]]:  # noqa: ANN401  a union of types has no type
    for one in get_args(union) or (union,):
        yield from _structs_of(one) if get_args(one) else (one,)


def _table_rule(struct: type[msgspec.Struct]) -> inspect.StructType:
    rule = inspect.type_info(struct)
    assert isinstance(rule, inspect.StructType), "it is a struct"
    return rule


#: kind -> its struct and its fields.
STRUCTS: Final[dict[str, type[msgspec.Struct]]] = {
    str(struct.__struct_config__.tag): struct for struct in _structs_of(Fault)
}
FIELDS: Final[dict[str, dict[str, inspect.Field]]] = {
    kind: {each.encode_name: each for each in _table_rule(struct).fields} for kind, struct in STRUCTS.items()
}


@dataclass(frozen=True)
class TypedSource(Source):
    """The place of a mistake, as whoever has typed a line knows it."""

    file: str = WHERE
    lines: Mapping[KeyPath, int] = field(default_factory=dict)
    ids: Sequence[str] = ()  #: of the faults before, in the order in which they are given to the checks

    def place(self, path: KeyPath) -> str:
        """Return what was typed; the key that is wrong stands in the message."""
        del path
        return self.file

    def error(self, path: KeyPath, *, problem: str, remedy: str) -> InputError:
        index = path[1] if len(path) > 1 else None
        if isinstance(index, int) and index < len(self.ids):  # what was typed is right, but for what is to come
            problem = f"it would be in the way of {self.ids[index]}, which is on the schedule: {problem}"
            remedy = "let it end before, with for_s=SECONDS"
        return InputError(where=self.place(path), problem=self._named(problem), remedy=self._named(remedy))

    def _named(self, text: str) -> str:
        """Return a message of the checks with the faults' IDs in it, and without what only a file has."""

        def name(found: re.Match[str]) -> str:
            number = int(found[1])
            return self.ids[number - 1] if number <= len(self.ids) else "this one"

        text = re.sub(r"\[\[fault\]\] (\d+)", name, text)
        return text.replace(" in double quotes", "")


def parse_fault(
    words: Sequence[str], *, before: Mapping[str, Fault], topology: Topology, now_s: float
) -> tuple[Fault, bool]:
    """Return the fault that the words after ``fault`` describe, and whether it is for later.

    Args:
        words: kind, target, ``key=value``.
        before: all faults of the run, by ID: past, active and scheduled ones.
        topology: of the network.
        now_s: since the run's start.

    Raises: InputError that says what would be right.
    """
    table = _as_table(words)
    is_later = "at_s" in table
    source = TypedSource(f"{WHERE} {words[0]}", ids=[*before])
    table.setdefault("at_s", now_s)
    _verify_required(table)
    fault = cast("Fault", checked(table, cast("Any", Fault), source, (WHERE, len(before))))
    if fault.at_s < now_s:
        raise source.error(
            ("at_s",),
            problem=f"{fault.at_s:g} s is past: it is {now_s:.1f} s now",
            remedy="leave at_s out: the fault is applied at once",
        )
    settings = ExperimentSection(name="shell", duration_s=NO_END_S)
    faults = check_faults([*before.values(), fault], topology, settings, source)
    check_faults_of_netem(faults, topology, source)
    return faults[-1], is_later


def _as_table(words: Sequence[str]) -> dict[str, Any]:
    if not words:
        raise InputError(
            where=WHERE, problem="no kind is given", remedy=f"{_usage('KIND')}; {pick_one_of('', STRUCTS)}"
        )
    kind = words[0]
    if kind not in STRUCTS:
        raise InputError(where=WHERE, problem=f"there is no kind `{kind}`", remedy=pick_one_of(kind, STRUCTS))
    table: dict[str, Any] = {"kind": kind}
    for word in words[1:]:
        key, equals, value = word.partition("=")
        if not equals or (key not in FIELDS[kind] and not re.fullmatch("[a-z_]+", key)):
            if "target" in table or "target" not in FIELDS[kind]:
                known = ", ".join(f"{name}=…" for name in FIELDS[kind] if name != "target")
                raise InputError(
                    where=WHERE, problem=f"`{word}` is one word too many", remedy=f"write key=value: {known}"
                )
            table["target"] = word
            continue
        if key in table:
            raise InputError(where=f"{WHERE}: {key}", problem="it is given twice", remedy="give it once")
        table[key] = _value(value, FIELDS[kind][key].type if key in FIELDS[kind] else None)
    return table


def _verify_required(table: Mapping[str, Any]) -> None:
    kind = str(table["kind"])
    for name, each in FIELDS[kind].items():
        if each.required and name not in table:
            what = (
                "a link, node or process" if name == "target" else describe(each.type).removesuffix(" in double quotes")
            )
            raise InputError(where=f"{WHERE} {kind}", problem=f"no {name} is given", remedy=f"{_usage(kind)}: {what}")


def _value(text: str, rule: inspect.Type | None) -> Any:  # noqa: ANN401  what TOML has
    """Return a value as `tomllib` would read it, without its quotes; what does not fit is left for the checks to refuse."""
    match rule:
        case None:
            return text
        case inspect.Metadata():
            return _value(text, rule.type)
        case inspect.UnionType():
            options = [option for option in rule.types if not isinstance(option, inspect.NoneType)]
            return _value(text, options[0]) if len(options) == 1 else _toml(text)
        case inspect.VarTupleType() | inspect.ListType():
            if text.startswith("["):
                return _toml(text)
            inner = rule.item_type.type if isinstance(rule.item_type, inspect.Metadata) else rule.item_type
            is_nested = isinstance(inner, inspect.VarTupleType | inspect.ListType)
            return [
                _value(part, rule.item_type)
                for part in text.split(LIST_SEPARATOR if is_nested else ITEM_SEPARATOR)
                if part
            ]
        case inspect.StrType() | inspect.LiteralType():
            return text
        case inspect.FloatType() | inspect.IntType():
            found = _toml(text)
            return found if isinstance(found, int | float) and not isinstance(found, bool) else text
        case _:
            return _toml(text)


def _toml(text: str) -> Any:  # noqa: ANN401
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError, ValueError):
        return text


# ---------------------------------------------------------------------- help and completion


def _usage(kind: str) -> str:
    target = "" if kind in FIELDS and "target" not in FIELDS[kind] else " TARGET"
    return f"fault {kind}{target} key=value …"


def kinds_help() -> str:
    """Return every kind with what it does and its keys."""
    lines = ["Kinds and their keys:"]
    for kind, struct in STRUCTS.items():
        lines.append(f"  {kind}: {(struct.__doc__ or '').strip().splitlines()[0].replace('``', '`').replace('*', '')}")
        lines += [
            f"      {name}={describe(each.type).removesuffix(' in double quotes')}"
            for name, each in FIELDS[kind].items()
            if name not in ("at_s", "target")
        ]
    lines += [
        "at_s=SECONDS puts it on the schedule, for_s=SECONDS heals it by itself where a kind has it.",
        f"Lists are written a{ITEM_SEPARATOR}b{ITEM_SEPARATOR}c, lists of lists a{ITEM_SEPARATOR}b{LIST_SEPARATOR}c.",
    ]
    return "\n".join(lines)


def complete_fault(before: Sequence[str], word: str, topology: Topology) -> list[str]:
    """Return what the next word of a fault line may be."""
    if not before:
        return list(STRUCTS)
    kind = before[0]
    if kind not in FIELDS:
        return []
    nodes = [node.name for node in topology.nodes]
    key, equals, value = word.partition("=")
    if equals:
        return [f"{key}={one}" for one in _values_of(kind, key, value, nodes, topology)]
    given = {other.partition("=")[0] for other in before[1:] if "=" in other}
    keys = [f"{name}=" for name in FIELDS[kind] if name not in given and name != "target"]
    has_target = "target" in given or any("=" not in other for other in before[1:])
    if has_target or "target" not in FIELDS[kind]:
        return keys
    links = [link.name for link in topology.links]
    if kind in PROCESS_KINDS or kind in PROCESS_EVENTS:
        return [*nodes, *processes(topology)]
    if kind in MESSAGE_KINDS:
        return [*links, *nodes, ALL_LINKS]
    return nodes if kind in ("partition", "isolate") else links


def processes(topology: Topology) -> list[str]:
    """Return the names of all processes of nodes."""
    return [
        name
        for node in topology.nodes
        for name in (f"{node.name}.forwarder", *((f"{node.name}.proxy",) if node.runs_proxy else ()))
    ]


def _values_of(kind: str, key: str, value: str, nodes: Sequence[str], topology: Topology) -> list[str]:
    """Return what may stand behind ``key=``: words of a list after those that stand there already."""
    if key not in FIELDS[kind]:
        return []
    rule = FIELDS[kind][key].type
    if isinstance(rule, inspect.UnionType):
        rule = next(option for option in rule.types if not isinstance(option, inspect.NoneType))
    rule = rule.type if isinstance(rule, inspect.Metadata) else rule
    match rule:
        case inspect.LiteralType():
            return [str(option) for option in rule.values]
        case inspect.BoolType():
            return ["true", "false"]
        case inspect.VarTupleType() | inspect.ListType():
            done = value[: max(value.rfind(ITEM_SEPARATOR), value.rfind(LIST_SEPARATOR)) + 1]
            return [f"{done}{node}" for node in nodes]
        case inspect.StrType() if key == "message":
            done = value[: value.rfind(ITEM_SEPARATOR) + 1]
            return [f"{done}{word}" for word in MESSAGE_WORDS]
        case inspect.StrType():
            return [*nodes, *(link.name for link in topology.links)] if key in _NAMES else []
        case _:
            return []


#: Keys of text that name a node or link.
_NAMES: Final = frozenset({"sender", "receiver", "target", "link", "node", "at", "to", "from"})

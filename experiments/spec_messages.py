"""Checks a table as read from TOML against a msgspec struct, with messages that say what would be right.

msgspec finds the same mistakes, but it names a type and a JSON path; here the message names the file's line and key, the
range, the unit, and the key or word that was probably meant. The rules are read from the struct itself (`msgspec.inspect`),
so that nothing is said twice; `checked` ends with `msgspec.convert`, so nothing can slip through either.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any, Final, TypeVar

import msgspec
from msgspec import inspect

from experiments.spec_places import KeyPath, Source
from topologies.errors import nearest, pick_one_of

T = TypeVar("T")

#: Whole numbers in TOML are 64 bit.
_INTEGER_MAX: Final = 2**63 - 1

#: Words for the same thing, elsewhere: what people write, and what the key is called here.
_SYNONYMS: Final = {
    "bandwidth": "rate_mbps",
    "begin": "start_s",
    "bw": "rate_mbps",
    "capacity": "rate_mbps",
    "end": "stop_s",
    "duration": "for_s",
    "interval": "rate_per_s",
    "latency": "delay_ms",
    "link": "target",
    "loss": "loss_ratio",
    "max": "at_most",
    "min": "at_least",
    "packet_loss": "loss_ratio",
    "payload": "size_bytes",
    "ping": "heartbeat_s",
    "queue": "queue_packets",
    "time": "at_s",
    "type": "kind",
    "ues": "ues_per_csr",
    "users": "publishers",
    "value": "equals",
}
_UNITS: Final = {
    "_s": "seconds",
    "_ms": "milliseconds",
    "_ratio": "a fraction from 0 to 1",
    "_mbps": "Mbit/s",
    "_bytes": "bytes",
    "_packets": "packets",
    "_per_s": "per second",
}
_UNIT_SUFFIX: Final = re.compile(
    r"_(?:per_s|s|sec|secs|seconds|ms|msec|millis|us|ns|min|ratio|percent|pct|rate|prob|probability|mbps|mbit|kbps|gbps|bps|bytes|kb|mb|packets)$"
)


def checked(value: object, wanted: type[T], source: Source, path: KeyPath) -> T:
    """Return *value*, a table as `tomllib` reads it, as a struct of type *wanted*.

    Args:
        value: the table.
        wanted: a msgspec struct type.
        source: where the table came from.
        path: where in it.

    Raises: InputError for the first mistake in it.
    """
    verify(value, inspect.type_info(wanted), source, path)
    try:
        return msgspec.convert(value, wanted)
    except msgspec.ValidationError as error:  # a rule that `verify` does not know
        raise source.error(path, problem=str(error), remedy="correct it") from error


def verify(value: object, rule: inspect.Type, source: Source, path: KeyPath) -> None:
    """Check a value against the type of a field. Raises: InputError for the first mistake in it."""
    match rule:
        case inspect.Metadata(type=inspect.StrType() as text):
            _verify_text(value, text, source, path, form=(rule.extra_json_schema or {}).get("description"))
        case inspect.Metadata():
            verify(value, rule.type, source, path)
        case inspect.StructType():
            _verify_table(value, rule, source, path)
        case inspect.UnionType():
            _verify_union(value, rule, source, path)
        case inspect.VarTupleType():
            _verify_list(value, rule, source, path)
        case inspect.DictType():
            for key, item in _as_table(value, source, path).items():
                verify(item, rule.value_type, source, (*path, key))
        case inspect.FloatType() | inspect.IntType():
            _verify_number(value, rule, source, path)
        case inspect.StrType():
            _verify_text(value, rule, source, path)
        case inspect.BoolType():
            if not isinstance(value, bool):
                raise source.error(
                    path, problem=f"{_said(path, value)} is neither true nor false", remedy="write true or false"
                )
        case inspect.LiteralType():
            if value not in rule.values:
                raise source.error(path, problem=f"{_said(path, value)} is unknown", remedy=_one_of(value, rule.values))


def _verify_table(
    value: object,
    rule: inspect.StructType,
    source: Source,
    path: KeyPath,
    others: Mapping[str, inspect.StructType] | None = None,
) -> None:
    """Check a table; *others* are the structs of the other kinds that could stand here, by kind."""
    table = _as_table(value, source, path)
    fields = {field.encode_name: field for field in rule.fields}
    known = [*fields, *([rule.tag_field] if rule.tag_field else [])]
    for key in table:
        if key not in known:
            raise source.error((*path, key), **_unknown_key(key, known, rule, others or {}, is_root=not path))
    for name, field in fields.items():
        if name in table:
            verify(table[name], field.type, source, (*path, name))
        elif field.required:
            is_table = isinstance(field.type, inspect.StructType | inspect.DictType)
            raise source.error(
                path,
                problem=f"the table `[{name}]` is missing" if is_table else f"`{name}` is missing",
                remedy=f"add `[{name}]`" if is_table else f"add `{name} = …`, {describe(field.type)}",
            )


def _verify_union(value: object, rule: inspect.UnionType, source: Source, path: KeyPath) -> None:
    """Check an optional value (TOML knows no null, so None never comes), or a table whose ``kind`` says its struct."""
    kinds = {str(option.tag): option for option in rule.types if isinstance(option, inspect.StructType)}
    if not kinds:
        for option in rule.types:
            if not isinstance(option, inspect.NoneType):
                verify(value, option, source, path)
        return
    table = _as_table(value, source, path)
    tag_field = next(iter(kinds.values())).tag_field or "kind"
    if tag_field not in table:
        meant = next((f"rename `{key}` to `{tag_field}`" for key in table if _SYNONYMS.get(key) == tag_field), None)
        raise source.error(path, problem=f"`{tag_field}` is missing", remedy=meant or pick_one_of("", kinds))
    kind = table[tag_field]
    if not isinstance(kind, str) or kind not in kinds:
        raise source.error(
            (*path, tag_field), problem=f"{_said((tag_field,), kind)} is unknown", remedy=_one_of(kind, tuple(kinds))
        )
    _verify_table(table, kinds[kind], source, path, {other: kinds[other] for other in kinds if other != kind})


def _verify_list(value: object, rule: inspect.VarTupleType, source: Source, path: KeyPath) -> None:
    name = path[-1] if path else ""
    of_tables = isinstance(rule.item_type, inspect.StructType | inspect.UnionType)
    if not isinstance(value, list):
        remedy = f"write [[{name}]], in double brackets, above each entry" if of_tables else f'write {name} = ["…"]'
        raise source.error(path, problem=f"`{name}` is {_kind_of_value(value)}, not a list", remedy=remedy)
    if rule.min_length is not None and len(value) < rule.min_length:
        raise source.error(path, problem=f"{name} = [] is empty", remedy=f"name at least one, or leave `{name}` out")
    for index, item in enumerate(value):
        verify(item, rule.item_type, source, (*path, index))


def _verify_number(value: object, rule: inspect.FloatType | inspect.IntType, source: Source, path: KeyPath) -> None:
    name = _key_of(path)
    if isinstance(value, str):
        number = re.match(r"\s*([+-]?[0-9]+(?:\.[0-9]+)?)", value)
        unit = unit_of(name)
        in_unit = f"; the unit is in the key's name ({unit})" if unit else ""
        remedy = f"write a bare number{in_unit}: {name} = {number[1] if number else '…'}, {describe(rule)}"
        raise source.error(path, problem=f"{_said(path, value)} is text, not a number", remedy=remedy)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise source.error(
            path,
            problem=f"{_said(path, value)} is {_kind_of_value(value)}, not a number",
            remedy=f"write {describe(rule)}",
        )
    if isinstance(value, float) and not math.isfinite(value):
        raise source.error(path, problem=f"{_said(path, value)} is not finite", remedy=f"write {describe(rule)}")
    if isinstance(rule, inspect.IntType) and isinstance(value, float):
        raise source.error(
            path,
            problem=f"{_said(path, value)} is not a whole number",
            remedy=f"write {describe(rule)}, without a decimal point",
        )
    if not _in_range(value, rule):
        raise source.error(
            path, problem=f"{_said(path, value)} is {_beyond(value, rule)}", remedy=_range_remedy(name, value, rule)
        )


def _verify_text(
    value: object, rule: inspect.StrType, source: Source, path: KeyPath, *, form: str | None = None
) -> None:
    """Check a text; *form* says in words what its pattern asks for."""
    name = _key_of(path)
    if not isinstance(value, str):
        raise source.error(
            path,
            problem=f"{_said(path, value)} is {_kind_of_value(value)}, not text",
            remedy=f'write text in double quotes: {name} = "…"',
        )
    if rule.min_length is not None and len(value) < rule.min_length:
        raise source.error(path, problem=f'{name} = "" is empty', remedy=f'write {name} = "…"')
    if rule.max_length is not None and len(value) > rule.max_length:
        raise source.error(path, problem=f"`{name}` is {len(value)} characters long", remedy="name an existing one")
    if rule.pattern is not None and not re.search(rule.pattern, value):
        raise source.error(
            path,
            problem=f"{_said(path, value)} does not have the right form",
            remedy=f"write {form or rule.pattern}",
        )


def describe(rule: inspect.Type) -> str:
    """Return what a value of *rule* is, in words.

    >>> describe(inspect.type_info(int)), describe(inspect.IntType(ge=1, le=255))
    ('a whole number', 'a whole number from 1 to 255')
    >>> describe(inspect.FloatType(gt=0, lt=1)), describe(inspect.FloatType(ge=-10, le=10))
    ('a number above 0 and below 1', 'a number from -10 to 10')
    """
    match rule:
        case inspect.Metadata():
            return describe(rule.type)
        case inspect.UnionType():
            return describe(next(option for option in rule.types if not isinstance(option, inspect.NoneType)))
        case inspect.FloatType() | inspect.IntType():
            noun = "a whole number" if isinstance(rule, inspect.IntType) else "a number"
            limits = _range(rule)
            spans = limits[:1] in set("-0123456789") and (" to " in limits or " and " in limits)
            return f"{noun} {'from ' if spans else ''}{limits}".rstrip()
        case inspect.LiteralType():
            return "one of " + ", ".join(f'"{value}"' for value in rule.values)
        case inspect.VarTupleType():
            return "a list"
        case _:
            return "text in double quotes"


def _unknown_key(
    key: str,
    known: list[str],
    rule: inspect.StructType,
    others: Mapping[str, inspect.StructType],
    *,
    is_root: bool,
) -> dict[str, str]:
    """Return problem and remedy for a key that the struct does not have."""
    owners = [kind for kind, other in others.items() if any(field.encode_name == key for field in other.fields)]
    if owners:
        return {
            "problem": f'`{key}` does not belong to {rule.tag_field} = "{rule.tag}"',
            "remedy": f"leave it out, or use {' or '.join(owners)}",
        }
    meant = _meant_key(key, known)
    if is_root:
        tables = {field.encode_name: isinstance(field.type, inspect.VarTupleType) for field in rule.fields}
        shown = [f"[[{name}]]" if is_list else f"[{name}]" for name, is_list in tables.items()]
        remedy = f"did you mean {shown[list(tables).index(meant)]}?" if meant else f"the tables are {', '.join(shown)}"
        return {"problem": f"there is no table `{key}`", "remedy": remedy}
    if meant is None:
        return {"problem": f"unknown key `{key}`", "remedy": f"the keys here are {', '.join(known)}"}
    unit = unit_of(meant)
    in_unit = f" in {unit}" if unit and not unit.startswith("a ") else f", {unit}" if unit else ""
    return {"problem": f"unknown key `{key}`", "remedy": f"did you mean `{meant}`{in_unit}?"}


def _meant_key(key: str, known: list[str]) -> str | None:
    """Return the one of *known* that *key* probably stands for: same stem and another unit, a synonym, or a near miss.

    >>> _meant_key("delay_s", ["delay_ms", "at_s"]), _meant_key("loss", ["loss_ratio"]), _meant_key("bw", ["rate_mbps"])
    ('delay_ms', 'loss_ratio', 'rate_mbps')
    """
    folded = key.casefold().replace("-", "_")
    stem = _UNIT_SUFFIX.sub("", folded)
    for candidate in known:
        if stem in (candidate, _UNIT_SUFFIX.sub("", candidate)):
            return candidate
    for word in (folded, stem):
        if _SYNONYMS.get(word) in known:
            return _SYNONYMS[word]
    close = nearest(folded, known, limit=1) or nearest(stem, known, limit=1)
    return close[0] if close else None


def _as_table(value: object, source: Source, path: KeyPath) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    name = path[-1] if path else "the file"
    if isinstance(value, list):
        problem, remedy = f"`{name}` is a list", f"write [{name}], in single brackets, once"
    else:
        problem, remedy = f"`{name}` is {_kind_of_value(value)}, not a table", f"write [{name}] and its keys below it"
    if path and isinstance(path[-1], int):
        problem, remedy = f"an entry is {_kind_of_value(value)}, not a table", f"write [[{path[0]}]] above each entry"
    if len(path) == 2 and path[0] == "links":
        remedy = f"say for which links: put `{name}` below [links.access], or another tier or link"
    raise source.error(path, problem=problem, remedy=remedy)


def _one_of(value: object, allowed: tuple[object, ...]) -> str:
    return pick_one_of(str(value), sorted(str(option) for option in allowed), shown_max=30)


def _beyond(value: float, rule: inspect.FloatType | inspect.IntType) -> str:
    """Return which limit *value* breaks."""
    if rule.gt is not None and value <= rule.gt:
        return f"not above {_plain(rule.gt)}"
    if rule.ge is not None and value < rule.ge:
        return f"below {_plain(rule.ge)}"
    return f"above {_plain(_INTEGER_MAX if rule.le is None else rule.le)}"


def _in_range(value: float, rule: inspect.FloatType | inspect.IntType) -> bool:
    return (
        abs(value) <= _INTEGER_MAX
        and (rule.ge is None or value >= rule.ge)
        and (rule.gt is None or value > rule.gt)
        and (rule.le is None or value <= rule.le)
        and (rule.lt is None or value < rule.lt)
    )


def _range(rule: inspect.FloatType | inspect.IntType) -> str:
    """Return the limits in words; the empty string if there are none."""
    low = _plain(rule.ge) if rule.ge is not None else f"above {_plain(rule.gt)}" if rule.gt is not None else ""
    if rule.lt is not None:
        return f"{low} and below {_plain(rule.lt)}" if low else f"below {_plain(rule.lt)}"
    high = _plain(rule.le) if rule.le is not None else ""
    if low and high:
        return f"{low} {'up ' if 'above' in low else ''}to {high}"
    return f"{low} or more" if low else f"at most {high}" if high else ""


def _plain(number: float) -> str:
    return str(number) if isinstance(number, int) else f"{number:g}"


def _range_remedy(name: str, value: float, rule: inspect.FloatType | inspect.IntType) -> str:
    if name.endswith("_ratio") and 1 < value <= 100:
        return f"it is a fraction; for {value:g} % write {value / 100:g}"
    unit = unit_of(name)
    remedy = f"write {describe(rule)}" + (f" ({unit})" if unit else "")
    if name.endswith("_s") and value >= 1_000 and value / 1_000 <= (rule.le or math.inf):
        remedy += f"; if you mean {_plain(value)} ms, that is {value / 1_000:g}"
    return remedy


def unit_of(name: str) -> str | None:
    suffixes = sorted((suffix for suffix in _UNITS if name.endswith(suffix)), key=len)
    return _UNITS[suffixes[-1]] if suffixes else None


def _key_of(path: KeyPath) -> str:
    return next((part for part in reversed(path) if isinstance(part, str)), "value")


def _said(path: KeyPath, value: object) -> str:
    """Return ``key = value`` as the file has it, shortened."""
    text = json.dumps(value, ensure_ascii=False, default=str) if not isinstance(value, float) else repr(value)
    return f"{_key_of(path)} = {text if len(text) <= 60 else text[:59] + '…'}"


def _kind_of_value(value: object) -> str:
    match value:
        case bool():
            return "true or false"
        case str():
            return "text"
        case int() | float():
            return "a number"
        case list():
            return "a list"
        case dict():
            return "a table"
        case _:
            return "a date or time"

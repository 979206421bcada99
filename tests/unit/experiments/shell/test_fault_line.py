"""A line of the shell says what an entry of [[fault]] says, and is refused as that is."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.shell import fault_line
from experiments.shell.fault_line import FIELDS, STRUCTS, complete_fault, kinds_help, parse_fault
from experiments.spec import parse_experiment
from experiments.spec_schema import Crash, Fault, Impair, LinkDown, LinkUp, kind_of
from experiments.toml_text import to_toml
from topologies.catalogue import build
from topologies.errors import InputError
from topologies.model import LinkBackend, Topology

NETWORK = build("tiers", {"cores": 3, "csrs": 2, "ues_per_csr": 1})


def parse(line: str, *, now_s: float = 10.0, **before: Fault) -> Fault:
    return parse_fault(line.split(), before=before, topology=NETWORK, now_s=now_s)[0]


def test_key_value_becomes_the_struct_of_its_kind() -> None:
    assert parse("link-down csr1-core1 for_s=2") == LinkDown(at_s=10.0, target="core1-csr1", for_s=2.0)
    assert parse("impair csr1-ue1 loss_ratio=0.25 delay_ms=7 sender=ue1") == Impair(
        at_s=10.0, target="csr1-ue1", loss_ratio=0.25, delay_ms=7.0, sender="ue1"
    )
    assert parse("crash target=csr1.proxy") == Crash(at_s=10.0, target="csr1.proxy")


def test_a_moment_to_come_puts_it_on_the_schedule() -> None:
    words = ["crash", "csr1.proxy", "at_s=12.5"]
    assert parse_fault(words, before={}, topology=NETWORK, now_s=10.0) == (Crash(at_s=12.5, target="csr1.proxy"), True)
    assert not parse_fault(words[:2], before={}, topology=NETWORK, now_s=10.0)[1]


def test_netem_links_choose_frames_and_others_are_refused() -> None:
    words = ["impair", "csr1-ue1", "match=udp dst-port 6363", "delay_ms=7"]
    with pytest.raises(InputError, match="csr1-ue1 is a wire link") as caught:
        parse_fault(words, before={}, topology=on(NETWORK, "wire"), now_s=1.0)
    assert caught.value.where == "fault impair"
    fault, _ = parse_fault(words, before={}, topology=on(NETWORK, "netem"), now_s=1.0)
    assert fault == Impair(at_s=1.0, target="csr1-ue1", match="udp dst-port 6363", delay_ms=7.0)


def on(topology: Topology, backend: LinkBackend) -> Topology:
    return topology.with_backends({link.name: backend for link in topology.links})


@pytest.mark.parametrize(
    ("line", "problem", "remedy"),
    [
        ("", "no kind is given", "`link-down`"),
        ("lnk-down core1-csr1", "no kind `lnk-down`", "did you mean `link-down`"),
        ("link-down", "no target is given", "fault link-down TARGET"),
        ("link-down core1-csr8", "no link `core1-csr8`", "did you mean"),
        ("link-down core1-csr1 5", "`5` is one word too many", "for_s="),
        ("link-down core1-csr1 for_s=soon", '"soon" is text', "for_s = …"),
        ("link-down core1-csr1 for_s=0", "not above 0", "seconds"),
        ("link-down core1-csr1 for=3", "unknown key `for`", "did you mean `for_s`"),
        ("link-down core1-csr1 loss_ratio=1", "does not belong to kind", "use impair"),
        ("impair core1-csr1", "it changes nothing", "give delay_ms"),
        ("impair core1-csr1 loss_ratio=20", "above 1", "for 20 % write 0.2"),
        ("impair core1-csr1 loss_ratio=0.2 loss_ratio=0.3", "given twice", "once"),
        ("impair core1-csr1 loss_ratio=0.2 sender=ue1", "`ue1` is no end", "core1 or csr1"),
        ("crash ue1", "is a UE", "freeze"),
        ("freeze csr7", "no node or process `csr7`", "did you mean"),
        ("crash csr1.proxy at_s=9", "is past", "leave at_s out"),
        ("link-up core1-csr1", "is not down", "link-down"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused_with_what_would_be_right(line: str, problem: str, remedy: str) -> None:
    with pytest.raises(InputError) as refused:
        parse(line)
    assert problem in refused.value.problem
    assert remedy in refused.value.remedy
    assert "[[fault]]" not in str(refused.value)
    assert "double quotes" not in str(refused.value)


def test_what_is_in_its_way_is_named_by_its_id() -> None:
    with pytest.raises(InputError, match="already down at 10 s, since h2"):
        parse(
            "link-down core1-csr1",
            f1=Impair(at_s=1.0, target="core1-csr1", loss_ratio=0.5),
            h2=LinkDown(at_s=3.0, target="core1-csr1"),
        )
    parse("link-down core1-csr1", h2=LinkDown(at_s=3.0, target="core1-csr1", for_s=4.0))
    assert parse("link-up core1-csr1", h2=LinkDown(at_s=3.0, target="core1-csr1")) == LinkUp(
        at_s=10.0, target="core1-csr1"
    )


def test_what_is_still_to_come_is_not_to_be_got_in_the_way_of() -> None:
    later = LinkDown(at_s=12.0, target="core1-csr1", for_s=1.0)
    with pytest.raises(
        InputError, match=r"in the way of f1, .* since this one \(link-down from 10 s on\) .*for_s=SECONDS"
    ):
        parse("link-down core1-csr1", f1=later)
    parse("link-down core1-csr1 for_s=2", f1=later)


@given(
    kind=st.sampled_from(["link-down", "impair", "crash", "freeze", "disk-loss"]),
    for_s=st.none() | st.floats(0.001, 100).map(lambda value: round(value, 3)),
    loss_ratio=st.floats(0, 1),
)
def test_what_can_be_typed_can_stand_in_a_file(kind: str, for_s: float | None, loss_ratio: float) -> None:
    words = [kind, "csr1-ue1" if kind in ("link-down", "impair") else "csr1.proxy"]
    words += [f"for_s={for_s!r}"] if for_s is not None else []
    words += [f"loss_ratio={loss_ratio!r}"] if kind == "impair" else []
    fault = parse(" ".join(words))
    entry = {name: value for name, value in msgspec.to_builtins(fault).items() if value is not None}
    file = {
        "experiment": {"name": "typed", "duration_s": 200.0},
        "topology": {"name": "tiers", "cores": 3, "csrs": 2, "ues_per_csr": 1},
        "fault": [entry],
    }
    assert parse_experiment(to_toml(file), Path("typed.toml")).faults == (fault,)
    assert kind_of(fault) == kind


class Grouped(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="grouped", kw_only=True):
    """A kind such as this one needs nothing here to be typed."""

    at_s: float
    groups: tuple[tuple[str, ...], ...]
    names: tuple[str, ...] = ()
    silent: bool = False
    count: int | None = None


def test_lists_and_truths_are_read_by_the_fields_of_the_struct(monkeypatch: pytest.MonkeyPatch) -> None:
    fields = {each.encode_name: each for each in fault_line._table_rule(Grouped).fields}
    monkeypatch.setitem(STRUCTS, "grouped", Grouped)
    monkeypatch.setitem(FIELDS, "grouped", fields)
    words = ["grouped", "groups=csr1,ue1/csr2", "names=a,b", "silent=true", "count=3"]
    table = fault_line._as_table(words)
    assert table["groups"] == [["csr1", "ue1"], ["csr2"]]
    assert msgspec.convert(table | {"at_s": 1.0}, Grouped) == Grouped(
        at_s=1.0, groups=(("csr1", "ue1"), ("csr2",)), names=("a", "b"), silent=True, count=3
    )
    assert fault_line._as_table(["grouped", 'groups=[["csr1"], ["ue 1"]]'])["groups"] == [["csr1"], ["ue 1"]]
    with pytest.raises(InputError, match="one word too many"):
        fault_line._as_table(["grouped", "csr1"])  # it has no target
    assert "groups=csr1,ue1/csr2" in complete_fault(["grouped"], "groups=csr1,ue1/", NETWORK)


def test_every_name_is_completed() -> None:
    assert "link-down" in complete_fault([], "", NETWORK)
    assert "core1-csr1" in complete_fault(["link-down"], "co", NETWORK)
    assert "csr1.proxy" in complete_fault(["crash"], "", NETWORK)
    assert "for_s=" in complete_fault(["link-down", "core1-csr1"], "", NETWORK)
    assert "for_s=" not in complete_fault(["link-down", "core1-csr1", "for_s=3"], "", NETWORK)
    assert "sender=ue1" in complete_fault(["impair", "csr1-ue1"], "sender=", NETWORK)
    assert complete_fault(["no-kind"], "", NETWORK) == []


def test_help_names_every_kind_and_key() -> None:
    text = kinds_help()
    assert all(f"{kind}:" in text for kind in STRUCTS)
    assert "loss_ratio=a number from 0 to 1" in text

"""What one fault must satisfy beyond the form of each key: that its target is there, its code runs, its packets are packets.

The shell checks what is typed with the same `resolve_fault` as the experiment file is checked with, and turns it with
`as_injected` into what the injector takes.
"""

# ruff: noqa: PLC0415  # scapy is loaded where a fault has code over packets, and only then: it takes 0.7 s

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, cast

import msgspec

from experiments.spec_schema import (
    BlackHole,
    Crash,
    DiskLoss,
    Fault,
    Flap,
    Forge,
    Impair,
    Inject,
    Isolate,
    LoginOutage,
    MessageFault,
    Partition,
    ProcessFault,
    Restart,
    kind_of,
)
from testbed.faults.model import NOT_OF_A_MATCH, FaultKind, FaultSource
from testbed.faults.model import Fault as InjectedFault
from testbed.faults.packets.crafting import packets_from_expression, packets_in_file, packets_in_text
from testbed.faults.packets.view import MESSAGE_WORDS
from testbed.faults.targets import (
    lanes_of,
    links_between,
    links_of,
    partition_groups,
    processes_of,
    spell_groups,
)
from testbed.links.netem.match import Match
from topologies.errors import InputError, pick_one_of
from topologies.model import LinkProperties, Topology

#: Makes the error for a wrong value of a key (None: of the fault as a whole), from problem and remedy.
Refuse = Callable[[str | None, str, str], InputError]

#: Problem and remedy where a link would never leave its bad state.
ENDLESS_BURST: Final = (
    "a burst of loss would never end: bad_to_good_ratio is 0",
    "give bad_to_good_ratio, 1 over the mean length of a burst in packets: 0.2 for five",
)

#: A carrier needs some time to change at both ends.
FLAP_STATE_MIN_S: Final = 0.02


def resolve_fault(fault: Fault, topology: Topology, *, folder: Path, refuse: Refuse) -> Fault:
    """Return *fault* with the topology's own names, and with its packets at hand.

    Args:
        fault: well-formed.
        topology: of the network.
        folder: where the names of files start.
        refuse: makes the error.
    Raises: InputError.
    """
    if isinstance(fault, ProcessFault):
        return _process_fault(fault, topology, refuse)
    if isinstance(fault, MessageFault):
        return _message_fault(fault, topology, refuse)
    if isinstance(fault, Partition):
        return _partition(fault, topology, refuse)
    if isinstance(fault, Isolate):
        with _told_as(refuse, "target"):
            topology.node(fault.target)
        return fault
    with _told_as(refuse, "target"):
        link = topology.link(fault.target)
    fault = msgspec.structs.replace(fault, target=link.name)
    sender = fault.sender if isinstance(fault, Impair | BlackHole | Inject) else None
    if sender is not None and sender not in (link.a, link.b):
        raise refuse(
            "sender",
            f"`{sender}` is no end of {link.name}",
            f"use {link.a} or {link.b}"
            + ("" if isinstance(fault, Inject) else ", or leave it out: then both directions are impaired"),
        )
    match fault:
        case Flap():
            _check_flap(fault, refuse)
        case Impair():
            _check_impairment(fault, topology, refuse)
        case Inject():
            return _with_packets(fault, folder, refuse)
    return fault


def endless_burst(properties: LinkProperties) -> bool:
    """Tell whether a link that enters its bad state never leaves it again."""
    return properties.good_to_bad_ratio > 0 and properties.bad_to_good_ratio == 0


def duration_s(fault: Fault) -> float | None:
    """Return how long a fault lasts; None: until somebody ends it."""
    return as_injected("f0", fault).duration_s if kind_of(fault) not in ("link-up", "thaw", "restart") else 0.0


def needs_scapy(fault: Fault) -> bool:
    """Tell whether a fault has code that runs over packets while they cross a link."""
    return isinstance(fault, MessageFault) and (fault.predicate is not None or isinstance(fault, Forge))


def as_injected(fault_id: str, fault: Fault, *, source: FaultSource = "schedule") -> InjectedFault:
    """Return a fault, resolved, as the injector takes it. Its time is at_s of the run."""
    given = {name: value for name, value in msgspec.structs.asdict(fault).items() if value is not None}
    at_s, target, for_s = given.pop("at_s"), given.pop("target", ""), given.pop("for_s", None)
    sender = given.pop("sender", None)
    parameters: dict[str, Any] = {  # what a flag says when it is not given is not told
        name: value for name, value in given.items() if value is not False or isinstance(fault, Impair)
    }
    if kind_of(fault) == "replay":
        parameters.setdefault("every_ms", parameters["after_ms"])
    return InjectedFault(
        fault_id=fault_id,
        kind=cast("FaultKind", kind_of(fault)),
        target=target,
        at_s=at_s,
        for_s=for_s,
        parameters=parameters,
        source=source,
        sender=sender,
    )


class _told_as:  # noqa: N801  used like a function
    """Turn an InputError of the block into one of *refuse*, about *key*."""

    def __init__(self, refuse: Refuse, key: str | None) -> None:
        self._refuse, self._key = refuse, key

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if isinstance(error, InputError):
            raise self._refuse(self._key, error.problem, error.remedy) from None


def _check_flap(fault: Flap, refuse: Refuse) -> None:
    if fault.count is None and fault.for_s is None:
        raise refuse(None, "it has no end", "add count = … or for_s = …")
    shorter_s = fault.period_s * min(fault.down_ratio, 1.0 - fault.down_ratio)
    if shorter_s < FLAP_STATE_MIN_S - 1e-9:  # a product of decimal fractions is not exact
        raise refuse(
            "period_s",
            f"the link would be {'down' if fault.down_ratio <= 0.5 else 'up'} for only {shorter_s * 1e3:g} ms at a time",
            f"both states last {FLAP_STATE_MIN_S * 1e3:g} ms at least: use a longer period_s",
        )


def _check_impairment(fault: Impair, topology: Topology, refuse: Refuse) -> None:
    changes = fault.changes()
    if not changes:
        raise refuse(None, "it changes nothing", "give delay_ms, jitter_ms, loss_ratio, rate_mbps or another property")
    if fault.queue_packets is not None and fault.queue_bytes is not None:
        raise refuse(
            "queue_bytes", "the queue is bounded by packets and by bytes", "give queue_packets or queue_bytes, not both"
        )
    if fault.match is not None:
        _check_match(fault, fault.match, refuse)
    link = topology.link(fault.target)
    senders = (link.a, link.b) if fault.sender is None else (fault.sender,)
    for sender in senders:
        changed: dict[str, Any] = dict(changes)
        if endless_burst(dataclasses.replace(link.properties_from(sender), **changed)):
            raise refuse("good_to_bad_ratio", *ENDLESS_BURST)
    if fault.ramp_s is None:
        return
    if fault.for_s is not None and fault.ramp_s > fault.for_s:
        raise refuse(
            "ramp_s",
            f"the ramp takes longer ({fault.ramp_s:g} s) than the fault lasts ({fault.for_s:g} s)",
            f"use at most {fault.for_s:g}",
        )
    for name, wanted in changes.items():
        if isinstance(wanted, str | bool):
            raise refuse("ramp_s", f"{name} changes at once or not at all", "leave ramp_s out, or make it two faults")
        if any(getattr(link.properties_from(sender), name) is None for sender in senders):
            raise refuse(
                "ramp_s",
                f"{fault.target} has no {name} that a ramp could begin at",
                "give it one in [links], or leave ramp_s out",
            )


def _check_match(fault: Impair, match: str, refuse: Refuse) -> None:
    with _told_as(refuse, "match"):
        Match.parse(match, where="match")
    for name in NOT_OF_A_MATCH:
        if getattr(fault, name) is not None:
            raise refuse(
                name,
                f"{name} is of all frames of a link, and match chooses some of them",
                f"leave {name} or match out, or make it two faults",
            )


def _partition(fault: Partition, topology: Topology, refuse: Refuse) -> Partition:
    if (not fault.target) == (fault.groups is None):
        raise refuse(
            None,
            "it names no groups" if not fault.target else "target and groups say the same",
            'give one: groups = [["csr1", "core1"], ["csr2"]]',
        )
    key = "target" if fault.groups is None else "groups"
    target = fault.target if fault.groups is None else spell_groups(fault.groups)
    with _told_as(refuse, key):
        groups = partition_groups(topology, target)
        if not links_between(topology, groups):
            raise InputError(where="", problem="no link is between the groups", remedy="see `hconf topo show`")
    return msgspec.structs.replace(fault, target=target, groups=None)


def _process_fault(fault: ProcessFault, topology: Topology, refuse: Refuse) -> ProcessFault:
    if isinstance(fault, LoginOutage) and not fault.target:
        if not topology.login_servers:
            raise refuse(None, f"{topology.name} has no login server", "leave the fault out")
        fault = msgspec.structs.replace(fault, target=topology.login_servers[0])
    target = fault.target
    try:
        processes = processes_of(topology, target)
    except InputError as error:
        raise refuse("target", f"{topology.name} has no node or process `{target}`", error.remedy) from None
    node = topology.node(target.partition(".")[0])
    if isinstance(fault, LoginOutage) and node.role != "login":
        raise refuse(
            "target", f"`{target}` is no login server", f"leave it out: {topology.login_servers[0]} is the one"
        )
    if isinstance(fault, DiskLoss) and not any(name.endswith(".proxy") for name in processes):
        raise refuse(
            "target",
            f"`{target}` has no disk: only service proxies store something",
            f"name one, such as {topology.proxies[0]}.proxy"
            if topology.proxies
            else "leave this fault out: in this mode there are none",
        )
    if isinstance(fault, Crash | Restart) and node.role == "ue" and not target.endswith(".proxy"):
        if not node.is_proxy:
            raise refuse(
                "target",
                f"`{target}` is a UE, which keeps nothing that it could go on from",
                "freeze it, or take its links down",
            )
        if isinstance(fault, Restart) or fault.for_s is not None:
            raise refuse(
                "target",
                f"`{target}` is a UE: it may vanish, but its client keeps nothing that it could go on from",
                f"leave for_s out, or {kind_of(fault)} {node.name}.proxy, which goes on from its disk",
            )
    return fault


def _message_fault(fault: MessageFault, topology: Topology, refuse: Refuse) -> MessageFault:
    with _told_as(refuse, "target"):
        links = links_of(topology, kind_of(fault), fault.target)
    if "-" in fault.target:
        fault = msgspec.structs.replace(fault, target=links[0].name)
    names = [node.name for node in topology.nodes]
    for key in ("sender", "receiver"):
        end = getattr(fault, key)
        if end is not None and end not in names:
            raise refuse(key, f"{topology.name} has no node `{end}`", pick_one_of(end, names))
    with _told_as(refuse, "receiver" if fault.sender is None else "sender"):
        lanes_of(topology, kind_of(fault), fault.target, sender=fault.sender, receiver=fault.receiver)
    words = _checked_words(fault.message, refuse)
    if needs_scapy(fault):
        from testbed.faults.packets.expressions import tried  # imports scapy, which takes 0.7 s

        for key in ("predicate", "edit"):
            text = getattr(fault, key, None)
            if text is not None:
                with _told_as(refuse, key):
                    tried(text, key=key, messages=words)
    return fault


def _checked_words(message: str | None, refuse: Refuse) -> tuple[str, ...]:
    words = tuple(word.strip() for word in (message or "").split(",") if word.strip())
    for word in words:
        if word not in MESSAGE_WORDS:
            raise refuse(
                "message", f"there is no message type `{word}`", pick_one_of(word, MESSAGE_WORDS, shown_max=40)
            )
    return words


def _with_packets(fault: Inject, folder: Path, refuse: Refuse) -> Inject:
    given = [key for key in ("file", "hex", "packet") if getattr(fault, key) is not None]
    if len(given) != 1:
        raise refuse(
            None,
            f"{' and '.join(given)} each say what is sent" if given else "nothing says what is sent",
            "give one of file, hex and packet",
        )
    if fault.times > 1 and fault.every_ms is None:
        raise refuse("times", f"times = {fault.times} says not how far apart", "add every_ms = …")
    if (fault.message or fault.name) and fault.file is None:
        raise refuse(
            "message" if fault.message else "name", "it chooses from a file, and there is none", "leave it out"
        )
    words = _checked_words(fault.message, refuse)
    with _told_as(refuse, given[0]):
        if fault.file is not None:
            packets = packets_in_file(folder / fault.file, messages=words, name=fault.name or "")
        elif fault.hex is not None:
            packets = packets_in_text("\n".join(fault.hex), where="hex")
        else:
            packets = packets_from_expression(fault.packet or "", where="packet")
    return msgspec.structs.replace(fault, file=None, packet=None, message=None, name=None, hex=tuple(packets))

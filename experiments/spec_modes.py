"""What ``conference.mode`` makes of the network: which nodes run a service proxy, and what a mode without any needs to know."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean
from typing import Any, Final

import msgspec

from experiments.spec_places import Source
from experiments.spec_schema import ExperimentFile
from proxy.wire.message_names import IDENTIFIER_MAX_OCTETS, node_prefix
from proxy.wire.name import VERSION, number
from proxy.wire.psync import encode_names, numbered
from proxy.wire.svs import encode_state_vector
from proxy.wire.tlv import PACKET_MAX_BYTES
from testbed.plan import PROXYLESS_MODES
from testbed.routing import path_delays_ms
from topologies.errors import pick_one_of
from topologies.model import Topology

#: What a packet holds besides the state: names (one of them with a filter), digest, key locator and signature.
_OVERHEAD_BYTES: Final = 1_000 + 3 * IDENTIFIER_MAX_OCTETS


def check_mode(
    file: ExperimentFile, topology: Topology, conference_of: Mapping[str, str], source: Source
) -> tuple[Topology, dict[str, Any]]:
    """Return the network as the mode has it, and the settings of the mode's own section for UEs. Raises: InputError."""
    mode = file.conference.mode
    if mode == "central":
        if file.conference.ack_level == "replicated":
            raise source.error(
                ("conference", "ack_level"),
                problem="in mode central there is one proxy only, and none that could hold a replica",
                remedy="use `durable` or `accepted`, or another mode",
            )
        return topology.served_by([_focus(file, topology, source)]), {}
    if mode not in PROXYLESS_MODES:
        return topology, {}
    if mode == "psync" and file.psync.jitter_max_s < file.psync.jitter_min_s:
        raise source.error(
            ("psync", "jitter_max_s"),
            problem=f"jitter_max_s = {file.psync.jitter_max_s:g} is less than jitter_min_s ({file.psync.jitter_min_s:g} s)",
            remedy=f"use at least {file.psync.jitter_min_s:g}",
        )
    _check_states_fit(mode, conference_of, source)
    return topology.served_by(()), msgspec.structs.asdict(getattr(file, mode))


def _focus(file: ExperimentFile, topology: Topology, source: Source) -> str:
    """Return the CSR that serves all."""
    wanted = file.central.focus
    if wanted is None:
        delays_ms = path_delays_ms(topology, sources=topology.csrs, destinations=topology.ues)
        return min(topology.csrs, key=lambda csr: fmean(delays_ms[csr][ue] for ue in topology.ues))
    if wanted not in topology.csrs:
        raise source.error(
            ("central", "focus"),
            problem=f"{topology.name} has no CSR `{wanted}`",
            remedy=pick_one_of(wanted, topology.csrs),
        )
    return wanted


def _check_states_fit(mode: str, conference_of: Mapping[str, str], source: Source) -> None:
    """Both sync protocols tell the whole state of a conference in one packet: SVS always, PSync to who joins."""
    for conference in sorted(set(conference_of.values())):
        ues = [ue for ue, of in conference_of.items() if of == conference]
        if mode == "svs":
            state = encode_state_vector({node_prefix(ue): {1: 1_000} for ue in ues})
        else:
            state = encode_names([numbered(node_prefix(ue) + number(1, VERSION), 1_000) for ue in ues])
        if len(state) + _OVERHEAD_BYTES > PACKET_MAX_BYTES:
            raise source.error(
                ("conference", "mode"),
                problem=f"in mode {mode} the state of the {len(ues)} UEs in `{conference}` does not fit into a packet "
                f"({PACKET_MAX_BYTES} bytes)",
                remedy="use fewer UEs (about 200 in one conference), or another mode",
            )

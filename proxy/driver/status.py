"""What a node tells of its state: for records, and over the control channel. Both drivers use it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from proxy.config import NodeConfig
from proxy.core.build import Client, NodeCore, client_of, forwarder_of
from proxy.core.conference import Conference
from proxy.core.fragmentation import PARTIAL_MAX_BYTES
from proxy.core.host import Host
from proxy.core.service_proxy import ServiceProxy
from proxy.core.view import View
from proxy.records import MessageCount, StateReported
from proxy.wire.name import to_uri


def _heads(view: View) -> list[tuple[str, int, int]]:
    return [(head.device, head.boot, head.seq) for head in view.heads()]


def reported_state(core: NodeCore, node: str, t_s: float) -> Iterator[StateReported]:
    """Yield the view of every conference in this core."""
    client = client_of(core)
    if client is not None:
        yield StateReported(
            t_s,
            client.conference,
            node,
            "client",
            client.view.digest().hex(),
            list(client.positions.vector()),
            _heads(client.view),
            client.view.roster(),
            client.view.away(),
        )
    if isinstance(core, ServiceProxy) and core.hand_over.takes_part:
        for conference in core.conferences.values():
            log = conference.log
            yield StateReported(
                t_s,
                conference.name,
                node,
                "proxy",
                log.state_digest().hex(),
                list(log.vector()),
                _heads(log.view),
                log.view.roster(),
                log.view.away(),
            )


def status_of(core: NodeCore) -> dict[str, Any]:
    """Return plain data, by component: ``forwarder``, ``client``, ``proxy``."""
    status: dict[str, Any] = {}
    forwarder = forwarder_of(core)
    if forwarder is not None:
        status["forwarder"] = {
            "faces": [
                {
                    "face_id": face.face_id,
                    "link": face.link,
                    "peer": face.peer,
                    "state": "up" if face.is_up else "down",
                }
                for face in forwarder.faces.values()
            ]
        }
    client = client_of(core)
    if client is not None:
        status["client"] = _client_status(client)
    if isinstance(core, ServiceProxy):
        takes_part, armed = core.hand_over.takes_part, core.armed_interests()
        status["proxy"] = {
            "service": core.hand_over.state,
            "conferences": {
                name: _conference_status(conference, armed=armed.get(name, 0))
                for name, conference in core.conferences.items()
                if takes_part
            },
        }
    return status


def tables_of(core: NodeCore) -> dict[str, Any]:
    """Return a forwarder's faces, routes and strategies with names as URIs, and what it counts; empty for a proxy."""
    forwarder = forwarder_of(core)
    if forwarder is None:
        return {}
    return {
        "faces": status_of(core)["forwarder"]["faces"],
        "fib": [
            {
                "prefix": to_uri(prefix),
                "next_hops": [{"face_id": hop.face_id, "cost_ms": hop.cost_ms} for hop in next_hops],
            }
            for prefix, next_hops in forwarder.fib.entries()
        ],
        "strategies": {to_uri(prefix): strategy for prefix, strategy in forwarder.fib.strategies()},
        "counters": dict(counters_of(core)),
    }


def counters_of(core: NodeCore) -> Counter[str]:
    """Return everything that the core counts, and how full what is bounded is."""
    forwarder, client = forwarder_of(core), client_of(core)
    counters: Counter[str] = Counter(core.counters if forwarder is None else forwarder.counters_now())
    if isinstance(core, Host):
        counters.update(core.application.counters)
    if isinstance(core, ServiceProxy):
        counters["history_entries"] = max(
            (conference.log.history_entries for conference in core.conferences.values()), default=0
        )
    if client is not None:
        counters["queued"], counters["unacked"] = client.queued, client.unacked
    return counters


def bounds_of(config: NodeConfig) -> dict[str, int]:
    """Return the configured bound of each counter that has one."""
    bounds: dict[str, int] = {}
    if (forwarder := config.forwarder) is not None:
        bounds |= {
            "pit_entries": forwarder.pit_max_entries,
            "pit_peak": forwarder.pit_max_entries,
            "cs_entries": forwarder.cs_max_entries,
            "cs_bytes": forwarder.cs_max_bytes,
            "reassembly_bytes": PARTIAL_MAX_BYTES * len(forwarder.faces),
        }
    if config.proxy is not None:
        bounds["history_entries"] = config.proxy.history_max_entries
    if config.client is not None:
        bounds |= {"queued": config.client.queue_max, "unacked": config.client.window_max}
    if (sync := config.svs or config.psync) is not None:
        bounds["publications_kept"] = sync.store_max
    return bounds


def sent_messages(core: NodeCore) -> list[MessageCount]:
    """Return what a forwarder has sent, by link and type of message."""
    forwarder = forwarder_of(core)
    return [
        MessageCount(face.link, face.peer, message, packets, size_bytes)
        for face in (forwarder.faces.values() if forwarder is not None else ())
        for message, (packets, size_bytes) in face.sent.items()
    ]


def _client_status(client: Client) -> dict[str, Any]:
    return {
        "state": client.state,
        "proxy": client.proxy,
        "conference": client.conference,
        "state_digest": client.view.digest().hex(),
        "vector": client.positions.vector(),
        "heads": _heads(client.view),
        "roster": client.view.roster(),
        "standings": client.view.standings(),
        "unacked": client.unacked,
        "queued": client.queued,
        "fetching": client.fetching,
    }


def _conference_status(conference: Conference, *, armed: int) -> dict[str, Any]:
    log = conference.log
    return {
        "state_digest": log.state_digest().hex(),
        "vector": log.vector(),
        "heads": _heads(log.view),
        "roster": log.view.roster(),
        "standings": log.view.standings(),
        "armed": armed,  # sync interests of ours that wait for what does not exist yet
        "clients": sorted(conference.clients),
        "peers": sorted(device for device, peer in conference.peers.items() if peer.up),
    }

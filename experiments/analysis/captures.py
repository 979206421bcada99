"""Publish and delivery times once more, from nothing but the captures: an independent witness of what the nodes wrote down.

On the access link of a user equipment every update that it publishes goes out and every one that it applies comes in. What is looked
for in a packet is an FP update, wherever in it that is, so it does not matter which message of which mode carried it. The times are those
of the frames; the records' are those of the programs. They agree if the difference is at most `AGREEMENT_MS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from experiments.applied import AppliedUpdates, UpdateId
from experiments.capture_file import CaptureReader, Datagram
from experiments.checker import Check, Problems, Verdict, examples
from experiments.columns import CAPTURES
from experiments.recorded_run import RecordedRun
from proxy.wire.lp import LinkPacket, decode_link_packet
from proxy.wire.message_names import message_type
from proxy.wire.packet import DATA, INTEREST, decode_data, peek_interest
from proxy.wire.tlv import MalformedError
from topologies.model import Link

CHECK: Final = "fidelity.captures"
#: What the two may differ by: 99 of 100 times.
AGREEMENT_MS: Final = 1.0
_SHARE: Final = 0.99
_DEPTH_MAX: Final = 8
#: Parts of packets that wait for the others; more are of packets that were never whole.
_PARTS_MAX: Final = 4_096
_PUBLISHING: Final = ("update", "close")
#: Shape of an FP update in MessagePack (proxy/wire/messages.py, FpUpdate).
_UPDATE_SHAPE: Final = (str, str, int, int, str, str, bytes, float, bytes, bytes, bytes)


@dataclass(slots=True)
class Sightings:
    """What was seen on one access link; times on CLOCK_MONOTONIC, at the user equipment."""

    link: str
    device: str
    published_s: dict[UpdateId, float] = field(default_factory=dict)
    delivered_s: dict[UpdateId, float] = field(default_factory=dict)
    until_s: float = -math.inf  #: what happened up to then would have been seen


@dataclass(slots=True)
class CaptureWitness:
    """What the captures of a run say, link by link: `frames` first, then what is known of all of them.

    Of one link at a time there are rows in memory; of the others only by how much the times differ.
    """

    run: RecordedRun
    links: int = 0  #: captured access links of one UE each
    damage: list[str] = field(default_factory=list)
    differences_ms: list[NDArray[np.float64]] = field(default_factory=list)
    missing: Problems = field(default_factory=Problems)
    unrecorded: Problems = field(default_factory=Problems)

    def frames(self) -> Iterator[pd.DataFrame]:
        """Yield the rows of captures.csv, of one link after the other; of none an empty frame."""
        yield pd.DataFrame(columns=CAPTURES.names)
        links = {link.name: link for link in self.run.topology.links}
        clock = _clock(self.run)
        for path in _captures(self.run):
            link = links.get(path.stem)
            reader = CaptureReader(path)
            device = None if link is None else _device_of(self.run, link)
            if link is None or device is None or clock is None:
                self.damage += _read_through(reader)
                continue
            self.links += 1
            sightings = observe(reader, link, device, clock)
            self.damage += reader.damage
            frame = pd.DataFrame(_compared(self.run, sightings), columns=CAPTURES.names)
            self._note(frame, sightings.until_s - self.run.epoch_s)
            yield frame

    def _note(self, frame: pd.DataFrame, until_s: float) -> None:
        """Keep of the rows of a link what the check needs; after *until_s* its capture is torn off and misses nothing."""
        self.differences_ms.append(frame["difference_ms"].dropna().to_numpy(dtype=np.float64))
        missing = frame[frame["captured_s"].isna() & (frame["recorded_s"] <= until_s)]
        unrecorded = frame[frame["recorded_s"].isna()]
        for problems, rows, where in (
            (self.missing, missing, "is in no capture"),
            (self.unrecorded, unrecorded, "is in no record"),
        ):
            for row in rows.itertuples():
                problems.add(f"{row.update_id} {row.what} at {row.node} {where}")

    def checks(self) -> tuple[Check, ...]:
        """Return the check that compares the captures with the records; none where nothing was captured."""
        return (self._judged(),) if _captures(self.run) else ()

    def _judged(self) -> Check:
        required = f"{_SHARE:.0%} of the times in captures of access links within {AGREEMENT_MS:g} ms of the records, none missing"
        if _clock(self.run) is None:
            said = "the manifest does not say how CLOCK_MONOTONIC and UTC compare"
            return Check(CHECK, "inconclusive", "", required, examples([said, *self.damage]))
        apart_ms = np.abs(np.concatenate([np.empty(0), *self.differences_ms]))
        if not len(apart_ms):
            said = "no update on a captured access link" if self.links else "no access link was captured"
            return Check(CHECK, "inconclusive", "nothing to compare", required, examples([said, *self.damage]))
        off_ms = float(np.quantile(apart_ms, _SHARE))
        problems = [*self.missing.first, *self.unrecorded.first]
        missing = len(self.missing) + len(self.unrecorded)
        is_off = missing > 0 or off_ms > AGREEMENT_MS
        verdict: Verdict = "fail" if is_off else "inconclusive" if self.damage else "pass"
        return Check(
            CHECK,
            verdict,
            f"p50 {np.median(apart_ms):.3f} ms, p99 {off_ms:.3f} ms, max {apart_ms.max():.3f} ms apart, of {len(apart_ms)} times "
            f"on {self.links} links; {missing} missing",
            required,
            examples([*self.damage, *problems], len(self.damage) + missing),
        )


def _captures(run: RecordedRun) -> list[Path]:
    return sorted(run.folder.captures.glob("*.pcapng")) if run.folder.captures.is_dir() else []


def observe(reader: CaptureReader, link: Link, device: str, monotonic_s: Callable[[float], float]) -> Sightings:
    """Return when each update passed the end of *link* at *device*: what was captured at the other end is moved by the delay.

    *monotonic_s*: CLOCK_MONOTONIC at a time in UTC.
    """
    sightings = Sightings(link.name, device)
    parts = _Parts()
    for datagram in reader:
        at_device = (reader.node or link.a) == device  # captures that do not say where were made at end a
        delay_s = 0.0 if at_device else link.properties.delay_ms / 1e3
        sightings.until_s = max(sightings.until_s, monotonic_s(datagram.t_s) - delay_s)
        from_device = datagram.is_outbound == at_device
        for is_publishing, updates in _updates_in(datagram, parts):
            for update in updates:
                if from_device and is_publishing and update[1] == device:
                    at_s = monotonic_s(datagram.t_s) - delay_s
                    sightings.published_s.setdefault(update, at_s)
                elif not from_device and update[1] != device:
                    at_s = monotonic_s(datagram.t_s) + delay_s
                    sightings.delivered_s.setdefault(update, at_s)
    if not reader.damage:
        sightings.until_s = math.inf
    return sightings


def _clock(run: RecordedRun) -> Callable[[float], float] | None:
    """Return what turns UTC into CLOCK_MONOTONIC, from both as compared when the run began and ended; None where nobody did.

    The two drift apart while UTC is being adjusted, by at most 500 ppm (adjtimex(2)): 10 ms in 20 s.
    """
    clock = run.manifest.get("clock") or {}
    first_s, begun_s = clock.get("utc_offset_s"), clock.get("start_s")
    if first_s is None or begun_s is None:
        return None
    last_s, ended_s = clock.get("utc_offset_end_s", first_s), clock.get("end_s", begun_s)
    drift = (last_s - first_s) / (ended_s - begun_s) if ended_s > begun_s else 0.0

    def monotonic_s(utc_s: float) -> float:
        about_s = utc_s - first_s
        return float(about_s - drift * (about_s - begun_s))

    return monotonic_s


def _device_of(run: RecordedRun, link: Link) -> str | None:
    """Return the user equipment at an end of *link*, if this is its only link."""
    ues = [end for end in (link.a, link.b) if run.topology.node(end).role == "ue"]
    return ues[0] if len(ues) == 1 and len(run.topology.links_of(ues[0])) == 1 else None


def _read_through(reader: CaptureReader) -> list[str]:
    for _ in reader:
        pass
    return reader.damage


class _Parts:
    """Fragments of packets, by direction and number of the first, until all are there (NDNLPv2, "Fragmentation")."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[bool, int], dict[int, bytes]] = {}

    def whole(self, packet: LinkPacket, *, is_outbound: bool) -> bytes | None:
        if packet.frag_count == 1:
            return packet.fragment
        key = is_outbound, (packet.sequence or 0) - packet.frag_index
        parts = self._waiting.setdefault(key, {})
        parts[packet.frag_index] = packet.fragment
        if len(parts) < packet.frag_count:
            if len(self._waiting) > _PARTS_MAX:
                del self._waiting[next(iter(self._waiting))]
            return None
        del self._waiting[key]
        return b"".join(part for _, part in sorted(parts.items()))


def _updates_in(datagram: Datagram, parts: _Parts) -> Iterator[tuple[bool, list[UpdateId]]]:
    """Yield whether the packet is a publisher's own message, and the updates in it; nothing for what is no packet of ours."""
    try:
        packet = decode_link_packet(datagram.payload)
        whole = parts.whole(packet, is_outbound=datagram.is_outbound)
        if not whole or packet.nack_reason is not None:
            return
        if whole[0] == INTEREST:
            interest = peek_interest(whole)
            name, content = interest.name, interest.parameters
        elif whole[0] == DATA:
            data = decode_data(whole)
            name, content = data.name, data.content
        else:
            return
        if content:
            kind = message_type(name, data=whole[0] == DATA)
            yield kind in _PUBLISHING, list(_updates_within(content, 0))
    except MalformedError:
        return


def _updates_within(content: bytes, depth: int) -> Iterator[UpdateId]:
    """Yield the updates encoded in *content*, or in octets inside of it."""
    try:
        plain = msgspec.msgpack.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return
    yield from _updates_among(plain, depth)


def _updates_among(plain: object, depth: int) -> Iterator[UpdateId]:
    if depth > _DEPTH_MAX:
        return
    if isinstance(plain, bytes):
        if len(plain) > 40 and (plain[0] & 0xF0 == 0x90 or plain[0] in (0xDC, 0xDD)):  # an array
            yield from _updates_within(plain, depth + 1)
    elif isinstance(plain, list):
        if len(plain) == len(_UPDATE_SHAPE) and all(map(isinstance, plain, _UPDATE_SHAPE)):
            yield plain[0], plain[1], plain[2], plain[3]
            return
        for entry in plain:
            yield from _updates_among(entry, depth + 1)


def _compared(run: RecordedRun, seen: Sightings) -> Iterator[tuple[Any, ...]]:
    """Yield a row for everything that the records or the capture know of the device, joined by update."""
    published = {
        (one.conference, one.publisher, one.boot, one.seq): one.t_s
        for one in run.history.published
        if one.publisher == seen.device
    }
    applied = {
        (one.conference, one.publisher, one.boot, one.seq): one.t_s
        for one in AppliedUpdates.of(run.history.applied).of_receiver(seen.device)
    }
    for what, recorded_s, captured_s in (
        ("published", published, seen.published_s),
        ("delivered", applied, _in_order(seen.delivered_s)),
    ):
        for update in sorted(recorded_s.keys() | captured_s.keys()):
            record, capture = recorded_s.get(update), captured_s.get(update)
            at_s = record
            if (
                record is None and what == "published"
            ):  # what came in and was not applied here, a snapshot had brought already
                at_s = capture
            if at_s is None or not run.epoch_s <= at_s <= run.end_s:
                continue
            yield (
                seen.link,
                seen.device,
                what,
                "/".join(map(str, update)),
                np.nan if record is None else record - run.epoch_s,
                np.nan if capture is None else capture - run.epoch_s,
                np.nan if record is None or capture is None else (record - capture) * 1e3,
            )


def _in_order(delivered_s: Mapping[UpdateId, float]) -> dict[UpdateId, float]:
    """Return when each update could be applied: in the order of its publisher's numbers, so not before those in front of it."""
    result: dict[UpdateId, float] = {}
    latest: dict[tuple[str, str], float] = {}
    for update in sorted(delivered_s):
        stream = update[0], update[1]
        latest[stream] = result[update] = max(delivered_s[update], latest.get(stream, -np.inf))
    return result

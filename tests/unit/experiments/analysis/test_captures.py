"""Times from captures: frames made by hand, beside the records of the fixture's run; ue1 hangs on csr1-ue1, captured at csr1."""

from __future__ import annotations

import csv
import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from experiments.analysis import analyse
from experiments.capture_file import CaptureReader
from experiments.run_folder import RunFolder
from proxy.wire.lp import LinkPacket, encode_link_packet
from proxy.wire.message_names import NOTIFY, UPDATE, message_name, node_prefix
from proxy.wire.messages import FpUpdate, Notification, SignedUpdate, StreamEntry, SyncUpdate
from proxy.wire.payload import encode
from proxy.wire.tlv import tlv
from testbed.capture import pcapng
from tests.unit.experiments.analysis.conftest import EPOCH_S, TRAFFIC

WriteRun = Callable[..., RunFolder]
UTC_S = 1_700_000_000.0  #: minus CLOCK_MONOTONIC
DELAY_S = 0.002  #: of csr1-ue1
CLOCK = {"clock": {"start_s": 97.0, "epoch_s": EPOCH_S, "quiesced_s": 112.0, "utc_offset_s": UTC_S}}
#: (CLOCK_MONOTONIC, sent by csr1, datagrams)
Frames = Iterable[tuple[float, bool, list[bytes]]]


def interest(name: bytes, parameters: bytes) -> bytes:
    digest = tlv(2, bytes(32))
    return tlv(5, tlv(7, name + digest) + tlv(0x0A, b"\0\0\0\1") + tlv(0x24, parameters))


def update(publisher: str, seq: int) -> SignedUpdate:
    body = FpUpdate("main", publisher, 1, seq, "message", "", bytes(32), 1.0, bytes(16), bytes(16), b"x" * 120)
    return SignedUpdate(encode(body), bytes(64))


def published(publisher: str, seq: int) -> bytes:
    name = message_name(node_prefix("csr1"), UPDATE, "main", publisher, boot=1, seq=seq)
    return interest(name, encode(update(publisher, seq)))


def notified(receiver: str, publisher: str, seq: int) -> bytes:
    entry = StreamEntry(
        "csr1", 1, seq, "armed", encode(SyncUpdate(bytes(16), (update(publisher, seq),), signature=bytes(64)))
    )
    name = message_name(node_prefix(receiver), NOTIFY, "main", "csr1", boot=1, seq=seq)
    return interest(name, encode(Notification((("csr1", 1, seq - 1),), (("csr1", 1, seq),), (entry,))))


def in_frame(datagram: bytes, *, port: int = 6363) -> bytes:
    udp = struct.pack("!HHHH", 6363, port, 8 + len(datagram), 0) + datagram
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0, b"\x0a\0\0\1", b"\x0a\0\0\2") + udp
    return bytes(12) + b"\x08\x00" + ip


def write_capture(folder: RunFolder, link: str, frames: Frames, *, at: str = "") -> Path:
    folder.captures.mkdir(exist_ok=True)
    path = folder.captures / f"{link}.pcapng"
    blocks = [pcapng.header(application="test", intf="eth0", description=f"link {link}" + (f" at {at}" if at else ""))]
    for t_s, outbound, datagrams in frames:
        blocks += [
            pcapng.packet(in_frame(datagram), time_ns=round((UTC_S + t_s) * 1e9), outbound=outbound)
            for datagram in datagrams
        ]
    path.write_bytes(b"".join(blocks))
    return path


def as_recorded(*, publish_late_s: float = 0.0, without: tuple[str, int] | None = None) -> Frames:
    """Return what csr1 sees of the fixture's traffic: what ue1 publishes a delay later, what it applies a delay before."""
    frames: list[tuple[float, bool, list[bytes]]] = []
    for publisher, seq, at_s, latencies_ms in TRAFFIC:
        t_s = EPOCH_S + at_s
        if (publisher, seq) == without:
            continue
        if publisher == "ue1":
            frames.append((t_s + DELAY_S + publish_late_s, False, [published(publisher, seq)]))
        elif "ue1" in latencies_ms:
            frames.append((t_s + latencies_ms["ue1"] / 1e3 - DELAY_S, True, [notified("ue1", publisher, seq)]))
    return sorted(frames)


def judged(folder: RunFolder) -> tuple[str, str, str, list[dict[str, str]]]:
    check = next((check for check in analyse(folder).checks if check.name == "fidelity.captures"), None)
    assert check is not None
    with (folder.path / "captures.csv").open(encoding="utf-8") as lines:
        return check.verdict, check.measured, check.detail, list(csv.DictReader(lines))


def test_without_captures_nothing_is_said_of_them(write_run: WriteRun) -> None:
    assert "fidelity.captures" not in [check.name for check in analyse(write_run()).checks]


def test_captures_that_agree_pass_with_every_time_beside_that_of_the_records(write_run: WriteRun) -> None:
    folder = write_run(manifest=CLOCK)
    write_capture(folder, "csr1-ue1", as_recorded())
    verdict, measured, _, rows = judged(folder)
    assert verdict == "pass"
    assert "of 6 times on 1 links; 0 missing" in measured  # ue1 publishes three and applies three
    assert [(row["what"], row["update_id"]) for row in rows] == [
        ("published", "main/ue1/1/1"), ("published", "main/ue1/1/2"), ("published", "main/ue1/1/3"),
        ("delivered", "main/ue2/1/1"), ("delivered", "main/ue3/1/1"), ("delivered", "main/ue3/1/2"),
    ]  # fmt: skip
    assert all(abs(float(row["difference_ms"])) < 0.001 for row in rows)
    assert float(rows[0]["captured_s"]) == pytest.approx(1.0, abs=1e-6)


def test_a_capture_at_the_user_equipment_s_own_end_needs_no_delay_and_stands_loss(write_run: WriteRun) -> None:
    """What was lost is not in it, and what was repeated is when it came: the link's delay, jitter and loss do not matter."""
    folder = write_run(manifest=CLOCK)
    at_csr = as_recorded()
    frames = [
        (t_s + (DELAY_S if outbound else -DELAY_S), not outbound, datagrams) for t_s, outbound, datagrams in at_csr
    ]
    write_capture(folder, "csr1-ue1", sorted(frames), at="ue1")
    verdict, measured, _, rows = judged(folder)
    assert (verdict, "of 6 times on 1 links; 0 missing" in measured) == ("pass", True)
    assert all(abs(float(row["difference_ms"])) < 0.001 for row in rows)


def test_times_that_differ_by_more_than_a_millisecond_fail(write_run: WriteRun) -> None:
    folder = write_run(manifest=CLOCK)
    write_capture(folder, "csr1-ue1", as_recorded(publish_late_s=0.0012))
    verdict, measured, _, rows = judged(folder)
    assert verdict == "fail"
    assert "max 1.200 ms" in measured
    assert {round(float(row["difference_ms"]), 3) for row in rows if row["what"] == "published"} == {-1.2}


def test_an_update_that_no_frame_carried_fails(write_run: WriteRun) -> None:
    folder = write_run(manifest=CLOCK)
    write_capture(folder, "csr1-ue1", as_recorded(without=("ue1", 2)))
    verdict, measured, detail, _ = judged(folder)
    assert (verdict, "1 missing" in measured) == ("fail", True)
    assert "main/ue1/1/2 published at ue1 is in no capture" in detail


def test_an_update_that_no_record_has_fails(write_run: WriteRun) -> None:
    folder = write_run(manifest=CLOCK)
    write_capture(folder, "csr1-ue1", [*as_recorded(), (107.0, False, [published("ue1", 9)])])
    verdict, _, detail, _ = judged(folder)
    assert (verdict, "main/ue1/1/9 published at ue1 is in no record" in detail) == ("fail", True)


def test_the_clocks_may_drift_while_utc_is_adjusted(write_run: WriteRun) -> None:
    """500 ppm over 15 s are 7.5 ms: the comparison at the end of the run takes them out."""
    clock = CLOCK["clock"] | {"end_s": 112.0, "utc_offset_end_s": UTC_S + 0.0075}
    folder = write_run(manifest={"clock": clock})
    drifting = [(t_s + 500e-6 * (t_s - 97.0), outbound, datagrams) for t_s, outbound, datagrams in as_recorded()]
    write_capture(folder, "csr1-ue1", drifting)
    assert judged(folder)[0] == "pass"


def test_fragments_repetitions_and_foreign_frames(write_run: WriteRun) -> None:
    folder = write_run(manifest=CLOCK)
    frames: list[tuple[float, bool, list[bytes]]] = []
    for number, (t_s, outbound, (packet,)) in enumerate(as_recorded()):
        parts = [
            encode_link_packet(LinkPacket(packet[at : at + 150], sequence=100 * number + index, frag_index=index,
                                          frag_count=-(-len(packet) // 150)))
            for index, at in enumerate(range(0, len(packet), 150))
        ]  # fmt: skip
        frames += [(t_s - 0.0002, outbound, parts[1:]), (t_s, outbound, parts[:1]), (t_s + 0.3, outbound, parts)]
        frames.append((t_s, outbound, [b"\x64\x00", b"\xff" * 50, b"", packet[:-3]]))
    write_capture(folder, "csr1-ue1", frames)
    verdict, measured, _, _ = judged(folder)
    assert (verdict, "of 6 times" in measured) == ("pass", True)


def test_a_capture_cut_off_in_a_frame_is_used_up_to_there_and_that_is_said(write_run: WriteRun) -> None:
    folder = write_run(manifest=CLOCK)
    path = write_capture(folder, "csr1-ue1", [*as_recorded(), (111.0, True, [notified("ue1", "ue3", 3)])])
    path.write_bytes(path.read_bytes()[:-30])
    verdict, measured, detail, _ = judged(folder)
    assert (verdict, "of 6 times" in measured) == ("inconclusive", True)
    assert "csr1-ue1.pcapng: octet " in detail
    assert "cut off in the middle of a block; everything before it was read" in detail


def test_what_came_after_a_capture_was_cut_off_is_not_missing(write_run: WriteRun) -> None:
    folder = write_run(manifest=CLOCK)
    path = write_capture(folder, "csr1-ue1", list(as_recorded())[:-2])
    assert judged(folder)[0] == "fail"
    path.write_bytes(path.read_bytes() + b"\x06\x00\x00\x00")
    verdict, measured, detail, rows = judged(folder)
    assert (verdict, measured.endswith("0 missing")) == ("inconclusive", True)
    assert "cut off in the middle" in detail
    assert [row["captured_s"] for row in rows].count("") == 2


@pytest.mark.parametrize("content", [b"", b"\x0a\x0d", b"PK\x03\x04 a zip file, and no capture", bytes(64)])
def test_what_is_no_capture_is_named_and_the_rest_reported(write_run: WriteRun, content: bytes) -> None:
    folder = write_run(manifest=CLOCK)
    path = write_capture(folder, "csr1-ue1", [])
    path.write_bytes(content)
    verdict, _, detail, rows = judged(folder)
    assert (verdict, rows == [] or all(not row["captured_s"] for row in rows)) == ("inconclusive", True)
    assert ("csr1-ue1.pcapng: octet 0" if content else "csr1-ue1.pcapng: is empty") in detail


def test_an_empty_capture_misses_nothing_and_is_named(write_run: WriteRun) -> None:
    """It once counted everything of its device as missing."""
    folder = write_run(manifest=CLOCK)
    write_capture(folder, "csr1-ue1", as_recorded())
    write_capture(folder, "csr2-ue3", []).write_bytes(b"")
    verdict, measured, detail, _ = judged(folder)
    assert (verdict, "of 6 times on 2 links; 0 missing" in measured) == ("inconclusive", True)
    assert detail == "csr2-ue3.pcapng: is empty"


def test_a_run_that_did_not_compare_its_clocks_says_so(write_run: WriteRun) -> None:
    folder = write_run()
    write_capture(folder, "csr1-ue1", as_recorded())
    verdict, _, detail, _ = judged(folder)
    assert (verdict, "CLOCK_MONOTONIC and UTC" in detail) == ("inconclusive", True)


def test_a_link_between_routers_shows_nothing_of_a_participant(write_run: WriteRun) -> None:
    folder = write_run(manifest=CLOCK)
    write_capture(folder, "csr1-csr2", as_recorded())
    verdict, measured, _, rows = judged(folder)
    assert (verdict, measured, rows) == ("inconclusive", "nothing to compare", [])


def test_captures_of_the_other_byte_order_and_in_microseconds(tmp_path: Path) -> None:
    """As a big-endian machine's tcpdump writes them: no option says the resolution, so it is 10 ** -6 s."""

    def block(kind: int, body: bytes) -> bytes:
        return struct.pack(">II", kind, 12 + len(body)) + body + struct.pack(">I", 12 + len(body))

    frame = in_frame(b"\x05\x00")
    padded = frame + bytes(-len(frame) % 4)
    time_us = 1_700_000_000_123_456
    packets = [block(6, struct.pack(">IIIII", 0, time_us >> 32, time_us & 0xFFFFFFFF, len(frame), len(frame)) + padded)]
    header = [block(0x0A0D0D0A, struct.pack(">IHHq", 0x1A2B3C4D, 1, 0, -1)), block(1, struct.pack(">HHI", 1, 0, 0))]
    path = tmp_path / "a.pcapng"
    path.write_bytes(b"".join([*header, *packets]))
    reader = CaptureReader(path)
    (datagram,) = reader
    assert (datagram.payload, reader.damage, datagram.is_outbound) == (b"\x05\x00", [], False)
    assert datagram.t_s == pytest.approx(1_700_000_000.123456, abs=1e-6)


def test_every_cut_of_a_capture_is_read_up_to_there(write_run: WriteRun, tmp_path: Path) -> None:
    whole = write_capture(write_run(), "csr1-ue1", as_recorded()).read_bytes()
    path = tmp_path / "cut.pcapng"
    before = 0
    for size in range(0, len(whole), 13):
        path.write_bytes(whole[:size])
        reader = CaptureReader(path)
        count = sum(1 for _ in reader)
        assert count >= before
        assert len(reader.damage) <= 1
        before = count


def test_what_others_send_is_left_out(tmp_path: Path) -> None:
    header = pcapng.header(application="t", intf="e", description="d")
    foreign: list[Any] = [in_frame(b"\x05\x00", port=53), bytes(14), b"", in_frame(b"")[:30], b"\xff" * 60]
    path = tmp_path / "a.pcapng"
    path.write_bytes(header + b"".join(pcapng.packet(frame, time_ns=1, outbound=True) for frame in foreign))
    reader = CaptureReader(path)
    assert list(reader) == []
    assert (reader.damage, reader.frames) == ([], len(foreign))

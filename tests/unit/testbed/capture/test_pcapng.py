"""What we write, an independent reader reads back."""

import io
import struct

from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.l2 import Ether
from scapy.utils import PcapNgReader

from testbed.capture import pcapng

TIMES_NS = st.integers(0, 4_000_000_000 * 10**9)
FRAMES = st.lists(st.tuples(st.binary(min_size=14, max_size=200), TIMES_NS, st.booleans()), max_size=20)


@given(FRAMES)
def test_frames_times_and_directions_come_back(frames: list[tuple[bytes, int, bool]]) -> None:
    file = io.BytesIO(pcapng.header(application="hconf", intf="a-eth0", description="link a-b"))
    file.seek(0, io.SEEK_END)
    for frame, time_ns, outbound in frames:
        file.write(pcapng.packet(frame, time_ns=time_ns, outbound=outbound))
    file.write(pcapng.statistics(time_ns=1, received_packets=len(frames), dropped_packets=0))
    file.seek(0)
    with PcapNgReader(file) as reader:  # type: ignore[arg-type]  # takes an open file too
        read = list(reader)
    assert [bytes(packet) for packet in read] == [bytes(Ether(frame)) for frame, _, _ in frames]
    assert [round(packet.time * 10**9) for packet in read] == [time_ns for _, time_ns, _ in frames]
    assert [packet.direction for packet in read] == [2 if outbound else 1 for _, _, outbound in frames]
    assert {packet.sniffed_on for packet in read} <= {"a-eth0"}


@given(FRAMES)
def test_every_block_begins_and_ends_with_its_length(frames: list[tuple[bytes, int, bool]]) -> None:
    """So a reader can go through the file in both directions, and past blocks that it does not know."""
    data = pcapng.header(application="hconf", intf="a-eth0", description="link a-b")
    data += b"".join(pcapng.packet(frame, time_ns=time_ns, outbound=out) for frame, time_ns, out in frames)
    data += pcapng.statistics(time_ns=1, received_packets=2**40, dropped_packets=1)
    kinds, offset = [], 0
    while offset < len(data):
        kind, length = struct.unpack_from("=II", data, offset)
        assert length % 4 == 0
        assert struct.unpack_from("=I", data, offset + length - 4) == (length,)
        kinds.append(kind)
        offset += length
    assert offset == len(data)
    assert kinds == [0x0A0D0D0A, 1, *[6] * len(frames), 5]

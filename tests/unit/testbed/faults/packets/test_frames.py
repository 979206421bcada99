import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from testbed.faults.packets.frames import LaneEnds, datagram_in

ENDS = LaneEnds("a-b", "a", "b", "02:0a:00:00:00:00", "02:0a:00:00:01:00", "10.0.0.0", "10.0.0.1")


@pytest.mark.parametrize("datagram", [b"x", b"xy", bytes(1_400), b"\xff" * 77])
def test_a_frame_is_what_scapy_would_make(datagram: bytes) -> None:
    frame = ENDS.frame(datagram)
    assert datagram_in(frame) == datagram
    packet = Ether(frame)
    assert (packet.src, packet.dst) == (ENDS.sender_mac, ENDS.receiver_mac)
    assert (packet[IP].src, packet[IP].dst, packet[UDP].sport, packet[UDP].dport) == (
        "10.0.0.0",
        "10.0.0.1",
        6363,
        6363,
    )
    said = packet[IP].chksum, packet[UDP].chksum
    del packet[IP].chksum, packet[UDP].chksum
    again = Ether(bytes(packet))
    assert (again[IP].chksum, again[UDP].chksum) == said


def test_a_wrong_checksum_is_wrong_and_not_the_one_that_means_none() -> None:
    right, wrong = (Ether(ENDS.frame(b"abc", checksum_right=is_right))[UDP].chksum for is_right in (True, False))
    assert wrong not in (right, 0)


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        bytes(60),
        bytes(Ether() / IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=7, dport=9) / b"x"),
        bytes(Ether() / IP(src="10.0.0.1", dst="10.0.0.2", frag=10) / UDP(sport=6363, dport=6363) / b"x"),
        ENDS.frame(b"abc")[:-1],
    ],
)
def test_other_frames_are_let_be(frame: bytes) -> None:
    assert datagram_in(frame) is None

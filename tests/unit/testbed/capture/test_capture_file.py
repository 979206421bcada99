"""Reading and editing captured frames; scapy stays as it was for everybody else."""

import struct
import subprocess
import sys
from pathlib import Path

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw
from scapy.utils import wrpcap, wrpcapng

from proxy.wire.lp import encode_sequenced
from proxy.wire.name import from_uri
from proxy.wire.packet import encode_interest
from testbed.capture.layers import LpPacket, Name, ndn_layers, opened, read_capture, with_lengths
from testbed.capture.layers.ndn import Component

DATAGRAM = encode_sequenced(7, encode_interest(from_uri("/a/b"), nonce=1)[1])
FRAME = bytes(Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / IP() / UDP(sport=6363, dport=6363) / DATAGRAM)


def test_importing_the_layers_leaves_scapy_as_it_was() -> None:
    """In a process of its own: what scapy's tables of UDP hold before and after, and what it makes of a datagram."""
    script = """
import sys
from scapy.layers.inet import IP, UDP
from scapy.packet import Raw
frame = bytes(IP() / UDP(sport=6363, dport=6363) / bytes.fromhex(sys.argv[1]))
before = list(UDP.payload_guess), dict(UDP._overload_fields), bytes(IP() / UDP())
import testbed.capture.layers
assert (list(UDP.payload_guess), dict(UDP._overload_fields), bytes(IP() / UDP())) == before
assert type(IP(frame)[UDP].payload) is Raw
assert "scapy.all" not in sys.modules
"""
    root = str(Path(__file__).parents[4])
    subprocess.run([sys.executable, "-c", script, DATAGRAM.hex()], check=True, env={"PYTHONPATH": root})


def test_scapy_dissects_ndn_in_the_block_and_not_behind_it() -> None:
    def kind() -> type[Packet]:
        return type(Ether(FRAME)[UDP].payload)

    before = list(UDP.payload_guess)
    with ndn_layers():
        assert kind() is LpPacket
        with ndn_layers():
            assert kind() is LpPacket
        assert kind() is LpPacket
    assert kind() is Raw
    with pytest.raises(KeyError, match="user's"), ndn_layers():
        raise KeyError("user's")
    assert kind() is Raw
    assert UDP.payload_guess == before


def test_a_datagram_is_sent_from_and_to_the_port_of_ndn() -> None:
    packet = IP() / UDP() / LpPacket(DATAGRAM)
    assert (packet[UDP].sport, packet[UDP].dport) == (6363, 6363)


@pytest.mark.parametrize("write", [wrpcap, wrpcapng])
def test_captures_of_both_formats_open(tmp_path: Path, write: object) -> None:
    path = tmp_path / "capture"
    other = Ether() / IP() / UDP(sport=53, dport=5353) / Raw(DATAGRAM)
    write(str(path), [Ether(FRAME), other])  # type: ignore[operator]  # one of scapy's two writers
    packet, untouched = read_capture(path)
    assert packet[Name].uri == "/a/b"
    assert bytes(packet) == FRAME
    assert not untouched.haslayer(LpPacket)


def test_lengths_and_checksums_below_follow_an_edit() -> None:
    packet = opened(Ether(FRAME))
    packet[Component].value = b"longer than before"
    assert len(bytes(packet)) == len(FRAME) + 17
    edited = Ether(bytes(with_lengths(packet)))
    assert edited[IP].len == len(edited[IP]) == len(FRAME) - 14 + 17
    assert edited[UDP].len == len(edited[UDP])
    assert (packet[IP].len, packet[UDP].len) == (len(FRAME) - 14, len(FRAME) - 34), "the packet itself is as captured"
    assert edited[UDP].chksum == Ether(bytes(with_lengths(edited)))[UDP].chksum
    assert opened(edited)[Component].value == b"longer than before"


def test_what_is_no_ndn_stays_octets() -> None:
    for octets in (b"", b"\x64", b"\x05\xff", b"GET / HTTP/1.1", DATAGRAM[:-1], struct.pack("!H", 0x6400) * 3):
        frame = bytes(Ether() / IP() / UDP(sport=6363, dport=6363) / octets)
        packet = opened(Ether(frame))
        assert bytes(packet) == frame


def test_padding_behind_a_short_datagram_stays_behind_it() -> None:
    frame = bytes(Ether() / IP() / UDP(sport=6363, dport=6363) / b"\x64\x00") + bytes(16)
    packet = opened(Ether(frame))
    assert type(packet[UDP].payload) is LpPacket
    assert bytes(packet) == frame

"""Captures of a real link, read by scapy, and by tshark and tcpdump where they are installed."""

import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from scapy.layers.inet import UDP
from scapy.utils import PcapNgReader

from proxy.wire.lp import LinkPacket, NackReason, encode_link_packet, encode_nack, encode_sequenced
from proxy.wire.name import from_uri
from proxy.wire.packet import encode_data, encode_interest
from testbed.capture.layers import read_capture
from testbed.capture.link_capture import LinkCapture
from tests.emulation.wire_pair import Pair, ip, wire_pair
from topologies.errors import CapabilityError, InputError


@pytest.fixture
def pair() -> Iterator[Pair]:
    with wire_pair() as made:
        yield made


@pytest.fixture
def holder(pair: Pair) -> Iterator[int]:
    """Return the pid of a process in host a's namespace, as a Mininet host has one."""
    inside = ("nsenter", f"--net=/proc/{os.getpid()}/fd/{pair.netns_a}", "sh", "-c", "echo up; read forever")
    with subprocess.Popen(inside, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid
        process.kill()


def send(pair: Pair, payloads: list[bytes]) -> None:
    sender, receiver = pair.sockets()
    with sender, receiver:
        for payload in payloads:
            sender.send(payload)
            assert receiver.recv(2_000) == payload


def payloads_in(path: Path) -> list[bytes]:
    with PcapNgReader(str(path)) as reader:
        return [bytes(packet[UDP].payload) for packet in reader]


PAYLOADS = [b"frame %d" % number * (1 + number % 7) for number in range(50)]


def test_a_capture_has_every_frame_and_every_tool_reads_it(pair: Pair, holder: int, tmp_path: Path) -> None:
    path = tmp_path / "a-b.pcapng"
    capture = LinkCapture.start("a-b", pid=holder, intf="a-eth0", path=path)
    send(pair, PAYLOADS)
    capture.stop()
    capture.stop()
    assert capture.poll() == 0
    assert payloads_in(path) == PAYLOADS
    if shutil.which("tcpdump"):
        said = subprocess.run(["tcpdump", "-nr", path], check=True, capture_output=True, text=True)
        assert said.stdout.count("10.0.0.0.6363 > 10.0.0.1.6363: UDP") == len(PAYLOADS)
    if shutil.which("tshark"):
        fields = [
            "-T",
            "fields",
            "-e",
            "frame.interface_name",
            "-e",
            "frame.packet_flags_direction",
            "-e",
            "udp.checksum.status",
        ]
        command = ["tshark", "-r", str(path), "-o", "udp.check_checksum:TRUE", *fields]
        said = subprocess.run(command, check=True, capture_output=True, text=True)
        assert said.stdout.splitlines() == ["a-eth0\t0x00000002\t1"] * len(PAYLOADS)  # outbound, checksum good


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_capture_keeps_what_it_saw(pair: Pair, holder: int, tmp_path: Path, number: signal.Signals) -> None:
    path = tmp_path / "a-b.pcapng"
    capture = LinkCapture.start("a-b", pid=holder, intf="a-eth0", path=path)
    send(pair, PAYLOADS)
    empty = path.stat().st_size
    while path.stat().st_size != empty or len(payloads_in(path)) < len(PAYLOADS):
        empty = path.stat().st_size
    os.kill(capture.pid, number)
    if number == signal.SIGKILL:
        with pytest.raises(CapabilityError, match="status -9"):
            capture.stop()
    else:
        capture.stop()
    assert payloads_in(path) == PAYLOADS


def test_a_capture_outlives_its_interface_going_down(pair: Pair, holder: int, tmp_path: Path) -> None:
    path = tmp_path / "a-b.pcapng"
    capture = LinkCapture.start("a-b", pid=holder, intf="a-eth0", path=path)
    send(pair, [b"before"])
    for state in ("down", "up"):
        ip(pair.netns_a, "link", "set", "a-eth0", state)
    ip(pair.netns_a, "neighbour", "replace", "10.0.0.1", "lladdr", "02:00:00:00:00:0b", "dev", "a-eth0")
    send(pair, [b"after"])
    capture.stop()
    assert payloads_in(path) == [b"before", b"after"]


def test_a_capture_ends_with_its_supervisor(pair: Pair, holder: int, tmp_path: Path) -> None:
    path = tmp_path / "a-b.pcapng"
    script = f"""
import pathlib, sys
from testbed.capture.link_capture import LinkCapture
capture = LinkCapture.start("a-b", pid={holder}, intf="a-eth0", path=pathlib.Path({str(path)!r}))
print(capture.pid, flush=True)
sys.stdin.read()
"""
    root = str(Path(__file__).parents[2])
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": root},
    ) as supervisor:
        assert supervisor.stdout is not None
        pidfd = os.pidfd_open(int(supervisor.stdout.readline()))
        send(pair, PAYLOADS)
        supervisor.kill()
    assert select.select([pidfd], [], [], 10.0)[0], "the recorder outlives its supervisor"
    os.close(pidfd)
    assert payloads_in(path) == PAYLOADS


def test_what_cannot_be_captured_is_refused_and_leaves_no_file(holder: int, tmp_path: Path) -> None:
    taken = tmp_path / "taken.pcapng"
    taken.write_bytes(b"not ours")
    for pid, intf, path, message in (
        (holder, "a-eth7", tmp_path / "new.pcapng", "interface a-eth7: .*No such device"),
        (2**22 + 1, "a-eth0", tmp_path / "new.pcapng", "has no network namespace"),
        (holder, "a-eth0", taken, "File exists"),
        (holder, "a-eth0", tmp_path / "missing" / "new.pcapng", "No such file"),
    ):
        with pytest.raises(InputError, match=f"capture of link a-b: .*{message}"):
            LinkCapture.start("a-b", pid=pid, intf=intf, path=path)
    assert list(tmp_path.iterdir()) == [taken]
    assert taken.read_bytes() == b"not ours"


INTEREST = encode_interest(from_uri("/hconf/csr1/32=recover/main/csr2/v=1/seq=1"), nonce=7, parameters=b"\x92\x90\xc2")[
    1
]
DATAGRAMS = [
    INTEREST,
    encode_data(from_uri("/a/b"), b"content", freshness_ms=1_000),
    encode_sequenced(7, INTEREST),
    encode_nack(INTEREST, NackReason.NO_ROUTE),
    encode_link_packet(LinkPacket(INTEREST, sequence=8, tx_sequence=9, acks=(1, 2), is_detour=True)),
    encode_link_packet(LinkPacket(b"", session_state=3, sent_count=4, gaps_seen=1, is_poll=True)),
]


def test_captures_of_ours_and_of_tcpdump_open_in_scapy_with_all_layers(pair: Pair, holder: int, tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours.pcapng", tmp_path / "theirs.pcap"
    captures = [ours]
    capture = LinkCapture.start("a-b", pid=holder, intf="a-eth0", path=ours)
    if shutil.which("tcpdump"):
        captures.append(theirs)
        command = ["nsenter", f"--net=/proc/{holder}/ns/net", "tcpdump", "-U", "-n", "-Z", "root", "-i", "a-eth0"]
        with subprocess.Popen([*command, "-w", theirs, "-c", "6", "udp"], stderr=subprocess.PIPE) as tcpdump:
            assert tcpdump.stderr is not None
            while b"listening on" not in tcpdump.stderr.readline():
                assert tcpdump.poll() is None
            send(pair, DATAGRAMS)
            assert tcpdump.wait(10.0) == 0
    else:
        send(pair, DATAGRAMS)
    capture.stop()
    for path in captures:
        packets = list(read_capture(path))
        assert [bytes(packet[UDP].payload) for packet in packets] == DATAGRAMS
        kinds = ["Interest", "Data", "LpPacket", "LpPacket", "LpPacket", "LpPacket"]
        assert [type(packet[UDP].payload).__name__ for packet in packets] == kinds
        assert [packet.haslayer("RecoveryRequest") for packet in packets] == [True, False, True, True, True, False]
        assert packets[3]["NackReason"].value == NackReason.NO_ROUTE
    if (
        shutil.which("tshark")
        and "\tndn\n"
        in subprocess.run(["tshark", "-G", "protocols"], check=True, capture_output=True, text=True).stdout
    ):
        # the dissector of ndn-tools is installed
        fields = ["-T", "fields", "-e", "frame.protocols", "-e", "_ws.malformed"]
        said = subprocess.run(["tshark", "-r", str(ours), *fields], check=True, capture_output=True, text=True)
        assert [line.split(":")[-1] for line in said.stdout.splitlines()] == ["ndn\t"] * len(DATAGRAMS)

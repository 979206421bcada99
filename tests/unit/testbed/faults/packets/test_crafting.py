from pathlib import Path

import pytest

from testbed.capture import pcapng
from testbed.faults.packets.crafting import (
    datagram_and_frame,
    packets_from_expression,
    packets_in_file,
    packets_in_text,
)
from testbed.faults.packets.frames import LaneEnds
from topologies.errors import InputError

ENDS = LaneEnds("a-b", "a", "b", "02:0a:00:00:00:00", "02:0a:00:00:01:00", "10.0.0.0", "10.0.0.1")
INTEREST = "050e07060801610801620a0400000007"
MADE = 'Interest(value=[Name.from_uri("/a/b"), Nonce(value=7)])'


def test_an_expression_makes_packets() -> None:
    assert packets_from_expression(MADE, where="packet") == [INTEREST]
    assert packets_from_expression(f"[{MADE}, b'\\x05']", where="packet") == [INTEREST, "05"]
    (frame,) = packets_from_expression(f"Ether()/IP(dst='10.0.0.1')/UDP()/{MADE}", where="packet")
    assert datagram_and_frame(frame)[0] == bytes.fromhex(INTEREST)


def test_text_is_hexadecimal_with_comments(tmp_path: Path) -> None:
    text = f"# two packets\n{INTEREST[:4]} {INTEREST[4:]}\n\nframe:{'00' * 14}  # whole\n"
    assert packets_in_text(text, where="hex") == [INTEREST, "frame:" + "00" * 14]
    path = tmp_path / "packets.hex"
    path.write_text(text)
    assert len(packets_in_file(path)) == 2


def test_a_python_file_sets_packets(tmp_path: Path) -> None:
    path = tmp_path / "made.py"
    path.write_text(
        "from testbed.capture.layers import Interest, Name, Nonce\n"
        'packets = [Interest(value=[Name.from_uri("/a/b"), Nonce(value=7)])]\n'
    )
    assert packets_in_file(path) == [INTEREST]


def test_of_a_capture_those_that_are_wanted(tmp_path: Path) -> None:
    heartbeat = packets_from_expression("LpPacket(value=[SessionState(value=3)])", where="packet")[0]
    frames = [ENDS.frame(bytes.fromhex(INTEREST)), ENDS.frame(bytes.fromhex(heartbeat)), bytes(60)]
    path = tmp_path / "link.pcapng"
    blocks = [pcapng.packet(frame, time_ns=1, outbound=True) for frame in frames]
    path.write_bytes(pcapng.header(application="test", intf="a", description="") + b"".join(blocks))
    assert packets_in_file(path) == [INTEREST, heartbeat, "frame:" + "00" * 60]
    assert packets_in_file(path, messages=["face-heartbeat"]) == [heartbeat]
    assert packets_in_file(path, name="/a/*") == [INTEREST]
    with pytest.raises(InputError, match="holds no packet that is wanted"):
        packets_in_file(path, messages=["push"])


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.hex", "05 0", "line 1: `050` is not hexadecimal"),
        ("a.hex", "# nothing", "holds no packet"),
        ("a.hex", "frame:0000", "a packet of 2 octets is too short"),
        ("a.py", "packets = 1/0", "raises ZeroDivisionError"),
        ("a.py", "packet = []", "sets no `packets`"),
        ("a.py", "packets = [3]", "makes a int, not a packet"),
        ("a.pcap", "no capture", "is no capture"),
        ("a.doc", "x", "what .doc holds is not known"),
    ],
)
def test_what_is_no_packet_is_refused(tmp_path: Path, name: str, content: str, problem: str) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(InputError, match=problem) as caught:
        packets_in_file(path)
    assert str(caught.value).startswith(str(path))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such file"):
        packets_in_file(tmp_path / "none.hex")


def test_an_expression_that_raises() -> None:
    with pytest.raises(InputError, match="raises NameError"):
        packets_from_expression("Intrest()", where="packet")

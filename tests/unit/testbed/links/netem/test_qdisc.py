"""What is sent to the kernel, byte for byte, and what pyroute2, which we do not use for it, makes of it."""

import dataclasses
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink.rtnl.tcmsg import tcmsg

from testbed.links.netem.attributes import attribute, parse, text
from testbed.links.netem.filters import FilterState, add_filter, delete_filter, redirect_all
from testbed.links.netem.match import Match
from testbed.links.netem.qdisc import (
    CERTAIN,
    NO_TIME_BYTES_PER_S,
    ROOT,
    TC_H_ROOT,
    Netem,
    QdiscState,
    add_qdisc,
    band_of,
    bands,
    change_qdisc,
    delay_handle,
    rate_handle,
)
from testbed.links.rtnetlink import Request
from topologies.errors import InputError


def as_pyroute2_sees(request: Request) -> tuple[Any, dict[str, Any]]:
    kind, flags, payload = request
    message = tcmsg(struct.pack("=IHHII", 16 + len(payload), kind, flags, 1, 0) + payload)
    message.decode()
    options = message.get_attr("TCA_OPTIONS")
    return message, dict(options["attrs"]) if isinstance(options, dict) else {}


def spaced(*words: str) -> str:
    return " ".join(words)


def test_netem_byte_for_byte() -> None:
    """Transcribed from linux/pkt_sched.h: struct tc_netem_qopt, then attributes by number."""
    asked = Netem(limit_packets=9, latency_ns=20_000_000, jitter_ns=0x1234, loss=5, duplicate=6, corrupt=7)
    assert asked.encode().hex(" ", 4) == spaced(
        "00000000 09000000 05000000 00000000 06000000 00000000",  # latency, limit, loss, gap, duplicate, jitter
        "10000100 00000000 00000000 00000000",  # TCA_NETEM_CORR: none
        "0c000300 00000000 00000000",  # TCA_NETEM_REORDER: none
        "0c000400 07000000 00000000",  # TCA_NETEM_CORRUPT
        "14000600 00000000 00000000 00000000 00000000",  # TCA_NETEM_RATE: none
        "0c000a00 002d3101 00000000",  # TCA_NETEM_LATENCY64
        "0c000b00 34120000 00000000",  # TCA_NETEM_JITTER64
    )
    more = Netem(rate_bytes_per_s=NO_TIME_BYTES_PER_S, bursts=(1, 2, 3, 4), seed=8, table=(1, -2)).encode()
    assert more[108:].hex(" ", 4) == spaced(
        "0c000800 00a0724e 18090000",  # TCA_NETEM_RATE64: 10**13
        "18000580 14000200 01000000 02000000 03000000 04000000",  # TCA_NETEM_LOSS, NETEM_LOSS_GE: p, r, h, 1-k
        "0c000e00 08000000 00000000",  # TCA_NETEM_PRNG_SEED
        "08000200 0100feff",  # TCA_NETEM_DELAY_DIST
    )


def test_netem_as_another_decoder_sees_it() -> None:
    asked = Netem(limit_packets=9, loss=5, duplicate=6, corrupt=7, rate_bytes_per_s=125_000)
    message, options = as_pyroute2_sees(
        add_qdisc(3, "netem", handle=delay_handle(1), parent=band_of(1), options=asked.encode())
    )
    assert (message["index"], message["handle"], message["parent"]) == (3, 0x6371_0000, 0x6363_0002)
    assert message.get_attr("TCA_KIND") == "netem"
    said = message.get_attr("TCA_OPTIONS")
    assert (said["limit"], said["loss"], said["duplicate"], said["gap"]) == (9, 5, 6, 0)
    assert options["TCA_NETEM_CORRUPT"]["prob_corrupt"] == 7
    assert options["TCA_NETEM_RATE"]["rate"] == 125_000


def test_what_is_ours_is_made_only_where_nothing_is_and_changed_only_where_it_is() -> None:
    """NLM_F_CREATE is 0x400, NLM_F_EXCL 0x200, NLM_F_REPLACE 0x100 (linux/netlink.h)."""
    root = add_qdisc(3, "prio", handle=ROOT, parent=TC_H_ROOT, options=bands())
    assert root[:2] == (36, 0x600)
    assert change_qdisc(3, "netem", handle=rate_handle(0), parent=1, options=b"")[:2] == (36, 0)
    numbers = {ROOT, *(delay_handle(flow) for flow in range(8)), *(rate_handle(flow) for flow in range(8))}
    assert len(numbers) == 17
    assert all(number & 0xFFFF == 0 for number in numbers)


probabilities = st.integers(0, CERTAIN)


@given(
    st.builds(
        Netem,
        limit_packets=probabilities,
        latency_ns=st.integers(0, 60_000_000_000),
        jitter_ns=st.integers(0, 2**31 - 1),
        loss=probabilities,
        bursts=st.none() | st.tuples(probabilities, probabilities, probabilities, probabilities),
        duplicate=probabilities,
        corrupt=probabilities,
        rate_bytes_per_s=st.integers(0, 2**40),
        seed=st.none() | st.integers(0, 2**64 - 1),
        table=st.tuples(st.integers(-32_767, 32_767)),
    )
)
def test_what_is_read_back_is_compared_with_what_was_asked(asked: Netem) -> None:
    found = Netem.decode(asked.encode())
    assert found.is_as_asked(asked)
    assert dataclasses.replace(found, seed=None).is_as_asked(asked)  # an older kernel does not tell the seed
    for name in ("limit_packets", "latency_ns", "jitter_ns", "loss", "duplicate", "corrupt", "rate_bytes_per_s"):
        other = dataclasses.replace(found, **{name: getattr(found, name) + 1})
        assert not other.is_as_asked(asked), name
    assert not dataclasses.replace(found, bursts=(1, 1, 1, 1) if found.bursts is None else None).is_as_asked(asked)


def test_statistics_of_a_qdisc() -> None:
    """As `tc -s qdisc` shows them; made by hand from linux/gen_stats.h."""
    basic = struct.pack("=HHQI4x", 20, 1, 1_042, 1)
    queue = struct.pack("=HHIIIII", 24, 3, 4, 4_000, 17, 0, 0)
    stats = basic + queue
    message = struct.pack("=BBHiIII", 0, 0, 0, 9, delay_handle(0), band_of(0), 2)
    message += struct.pack("=HH", 10, 1) + b"netem\0\0\0" + struct.pack("=HH", 4 + len(stats), 7) + stats
    state = QdiscState.decode(message)
    assert (state.index, state.handle, state.kind) == (9, 0x6370_0000, "netem")
    assert (state.packets, state.carried_bytes, state.dropped, state.waiting) == (1, 1_042, 17, 4)


def test_everything_that_arrives_is_redirected() -> None:
    ingress, redirected = redirect_all(4, to_index=5)
    assert as_pyroute2_sees(ingress)[0]["parent"] == 0xFFFF_FFF1
    message, _ = as_pyroute2_sees(redirected)
    assert (message["index"], message["parent"], message["info"]) == (4, 0xFFFF_0000, 1 << 16 | 0x0300)  # ETH_P_ALL
    assert message.get_attr("TCA_KIND") == "matchall"
    mirred = redirected[2][-28:]
    assert struct.unpack("=IIiiiiI", mirred) == (0, 0, 4, 0, 0, 1, 5)  # TC_ACT_STOLEN, TCA_EGRESS_REDIR, interface


def test_a_filter_matches_what_it_says() -> None:
    match = Match.parse("udp src 10.0.0.0/31 dst 10.0.0.1 src-port 9 dst-port 6363", where="x")
    message, _ = as_pyroute2_sees(add_filter(4, match, flow=2))
    said = bytes.fromhex(message.get_attr("TCA_OPTIONS").replace(":", ""))
    options = dict(parse(said))  # numbers from linux/pkt_cls.h, TCA_FLOWER_…
    # All that a match can say, but for one bit of an address; the eight flows of that strictness, 2 for the flow; ETH_P_IP
    assert (message.get_attr("TCA_KIND"), message["info"]) == ("flower", (1 * 8 + 2) << 16 | 0x0008)
    removed, _ = as_pyroute2_sees(delete_filter(4, match, flow=2))
    assert (removed["index"], removed["parent"], removed["info"]) == (4, ROOT, message["info"])
    assert struct.unpack("=I", options[1]) == (0x6363_0003,)  # CLASSID
    assert (options[8], options[9]) == (b"\x08\x00", b"\x11")  # KEY_ETH_TYPE, KEY_IP_PROTO
    assert (options[10], options[11]) == (bytes((10, 0, 0, 0)), bytes((255, 255, 255, 254)))  # KEY_IPV4_SRC, …_MASK
    assert (options[12], options[13]) == (bytes((10, 0, 0, 1)), bytes((255, 255, 255, 255)))  # KEY_IPV4_DST, …_MASK
    assert (options[20], options[21]) == (b"\x00\x09", b"\x18\xdb")  # KEY_UDP_SRC, KEY_UDP_DST


def test_a_filter_is_read_back_as_the_kernel_tells_it() -> None:
    """Transcribed from what kernel 6.1 says of ``udp dst 10.0.0.0/24 dst-port 6363``: masks and flags come along."""
    header = struct.pack("=BBHiIII", 0, 0, 0, 4, 1, ROOT, 0x0280_0008)
    keys = [
        (1, struct.pack("=I", 0x6363_0003)),
        *((8, b"\x08\x00"), (9, b"\x11"), (12, bytes((10, 0, 0, 0))), (13, bytes((255, 255, 255, 0)))),
        *((21, b"\x18\xdb"), (38, b"\xff\xff"), (22, bytes(4))),
    ]
    options = b"".join(attribute(kind, value) for kind, value in keys)
    told = header + text(1, "flower") + attribute(11, bytes(4)) + attribute(2, options)
    assert FilterState.decode(told) == FilterState(
        4, 0x6363_0003, Match.parse("udp dst 10.0.0.0/24 dst-port 6363", where="x")
    )
    of_a_priority = struct.pack("=BBHiIII", 0, 0, 0, 4, 0, ROOT, 0x0280_0008) + text(1, "flower")
    assert FilterState.decode(of_a_priority) is None


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ("", "`` says not what to match"),
        ("udp dst-port", "`udp dst-port` says not what to match"),
        ("udp dst-port 0", "`dst-port 0` in"),
        ("udp dst-port 70000", "`dst-port 70000` in"),
        ("dst-port 80", "a port of what?"),
        ("icmp dst-port 80", "a port of what?"),
        ("udp to 10.0.0.1", "`to 10.0.0.1` in"),
        ("src 10.0.0.300", "`src 10.0.0.300`: "),
        ("src 10.0.0.1 src 10.0.0.2", "`src` stands twice"),
    ],
)
def test_a_match_that_says_nothing_or_too_much(said: str, problem: str) -> None:
    with pytest.raises(InputError) as caught:
        Match.parse(said, where="here")
    assert problem in caught.value.problem
    assert caught.value.where == "here"

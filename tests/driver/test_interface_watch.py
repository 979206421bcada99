"""rtnetlink messages: as the kernel writes them, cut short, and nonsense; and the kernel itself."""

from __future__ import annotations

import contextlib
import socket
import struct
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.driver.interface_watch import InterfaceWatch, parse_link_messages

RTM_NEWLINK, RTM_DELLINK, RTM_NEWADDR, NLMSG_DONE = 16, 17, 20, 3
IFF_UP, IFF_RUNNING, IFF_LOWER_UP = 0x1, 0x40, 0x10000


def link_message(kind: int, index: int, flags: int, attributes: bytes = b"") -> bytes:
    """struct nlmsghdr, struct ifinfomsg (rtnetlink(7)), attributes."""
    body = struct.pack("=BxHiII", 0, 1, index, flags, 0) + attributes
    message = struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body
    return message + bytes(-len(message) % 4)


@pytest.mark.parametrize(
    ("kind", "flags", "has_carrier"),
    [
        (RTM_NEWLINK, IFF_UP | IFF_RUNNING | IFF_LOWER_UP, True),
        (RTM_NEWLINK, IFF_UP | IFF_LOWER_UP, True),
        (RTM_NEWLINK, IFF_UP, False),  # up, no carrier
        (RTM_NEWLINK, IFF_LOWER_UP, False),  # carrier, but taken down
        (RTM_NEWLINK, 0, False),
        (RTM_DELLINK, IFF_UP | IFF_LOWER_UP, False),  # gone
    ],
)
def test_carrier(kind: int, flags: int, has_carrier: bool) -> None:  # noqa: FBT001
    assert list(parse_link_messages(link_message(kind, 7, flags))) == [(7, has_carrier, None)]


def test_several_messages_with_attributes_and_others_between() -> None:
    buffer = (
        link_message(RTM_NEWLINK, 1, IFF_UP | IFF_LOWER_UP, b"\x05\x00\x03\x00lo"[:6])
        + link_message(RTM_NEWADDR, 9, 0)
        + link_message(RTM_NEWLINK, 2, 0, bytes(52))
        + struct.pack("=IHHIII", 20, NLMSG_DONE, 2, 1, 0, 0)
    )
    assert list(parse_link_messages(buffer)) == [(1, True, None), (2, False, None)]


def test_message_cut_short() -> None:
    whole = link_message(RTM_NEWLINK, 1, IFF_UP | IFF_LOWER_UP)
    for size in range(len(whole)):
        assert list(parse_link_messages(whole + whole[:size])) == [(1, True, None)]


def test_mtu_is_read_from_among_the_attributes() -> None:
    name = struct.pack("=HH4s", 7, 3, b"lo\0")
    mtu = struct.pack("=HHI", 8, 4, 1_280)
    (state,) = parse_link_messages(link_message(RTM_NEWLINK, 3, IFF_UP | IFF_LOWER_UP, name + mtu))
    assert state == (3, True, 1_280)


@pytest.mark.parametrize("length", [0, 1, 15, 2**32 - 1])
def test_length_that_cannot_be(length: int) -> None:
    assert list(parse_link_messages(struct.pack("=IHHII", length, RTM_NEWLINK, 0, 0, 0) + bytes(64))) == []


messages = st.builds(
    link_message, st.integers(14, 20), st.integers(0, 9), st.integers(0, 2**32 - 1), st.binary(max_size=9)
)


@settings(max_examples=200)
@given(st.binary(max_size=200) | st.lists(messages, max_size=4).map(b"".join))
def test_any_bytes_are_read_without_complaint(buffer: bytes) -> None:
    assert len(list(parse_link_messages(buffer))) <= len(buffer) // 16


async def test_kernel_tells_of_every_interface_at_first() -> None:
    watch, mtu_bytes = InterfaceWatch(), int(Path("/sys/class/net/lo/mtu").read_text())  # noqa: ASYNC240  not a disk
    try:
        with trio.fail_after(10.0):
            async with contextlib.aclosing(watch.changes()) as changes:
                async for state in changes:
                    if state.interface == socket.if_nametoindex("lo"):
                        assert state.has_carrier
                        assert state.mtu_bytes == mtu_bytes
                        break
    finally:
        watch.close()

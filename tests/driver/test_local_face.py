"""The face between a forwarder and the service proxy of its node."""

from __future__ import annotations

from pathlib import Path

import trio
import trio.testing

from proxy.core.events import CarrierChanged
from proxy.driver.faces import LocalFace, listen_for_service
from proxy.driver.packet_loop import PacketLoop


def a_loop() -> PacketLoop:
    return PacketLoop(dispatch=lambda _: None, deadline_s=lambda: None, on_deadline=lambda: None)


async def test_a_proxy_is_attached_when_its_forwarder_has_taken_it_in_and_not_before(tmp_path: Path) -> None:
    """A connection that is only in the forwarder's queue would have joins refused."""
    path, events = tmp_path / "socket", list[object]()
    listener = listen_for_service(path)
    proxy, forwarder = LocalFace(a_loop(), events.append), LocalFace(a_loop(), lambda _: None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(proxy.connect_forever, path)
        with trio.fail_after(10.0):
            await trio.lowlevel.wait_readable(listener)
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert (proxy.attached.is_set(), events) == (False, [])
            nursery.start_soon(forwarder.accept_forever, listener)
            await proxy.attached.wait()
            await trio.testing.wait_all_tasks_blocked(0.01)
        assert events == [CarrierChanged(proxy.face_id, up=True)]
        nursery.cancel_scope.cancel()

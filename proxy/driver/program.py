"""The node program: one core on real sockets, clocks and files, under trio.

    neighbours <- UDP -> faces ->            -> control channel <-> supervisor
                                dispatch(core)
    the other process <- Unix -> face ->     -> raw records

``dispatch`` is synchronous, so events never interleave; the tasks around it only wait.
"""

from __future__ import annotations

import contextlib
import gc
import resource
import socket
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

import msgspec
import trio

from proxy.config import ForwarderConfig, NodeConfig
from proxy.core.build import NodeCore, build_core, forwarder_of, service_face
from proxy.core.events import (
    LOCAL_FACE,
    ApplicationLeft,
    CarrierChanged,
    Effect,
    Event,
    Log,
    MtuChanged,
    PacketReceived,
    Restored,
    Send,
    TimerExpired,
)
from proxy.driver.applications import ApplicationFace, Applications
from proxy.driver.control import ControlServer
from proxy.driver.faces import LocalFace, listen_for_service, open_udp_face
from proxy.driver.interface_watch import InterfaceWatch
from proxy.driver.packet_loop import PacketLoop, PacketSocket
from proxy.driver.records import RecordWriter
from proxy.driver.status import bounds_of, counters_of, reported_state, sent_messages, status_of
from proxy.lag import LagHistogram
from proxy.processing import ProcessingMeter
from proxy.records import CountersReported, FaceChanged, PrefixChanged, ProcessingMeasured, SessionChanged
from proxy.storage.log_store import LogStore
from proxy.storage.writer import LogWriter

COUNTERS_INTERVAL_S: Final = 1.0
#: A service proxy whose forwarder is not there is ready all the same, after so long.
ATTACH_LIMIT_S: Final = 1.0
#: Cores make hardly any reference cycles; a full collection would hold up packets for milliseconds.
GC_THRESHOLDS: Final = (50_000, 20, 100)


class NodeProgram:
    """Everything of one node process."""

    def __init__(self, config: NodeConfig, *, control: socket.socket) -> None:
        self._log: LogWriter | None = None
        self._restored: Restored | None = None
        if config.proxy is not None and config.proxy.log_path is not None:
            store = LogStore(Path(config.proxy.log_path), device=config.node)
            config = msgspec.structs.replace(config, boot=store.take_boot(config.boot))
            self._restored = Restored(store.restored)
            self._log = LogWriter(store)
        self.config = config
        self.core: NodeCore = build_core(config)
        self.core.perform_at_once(self._perform)
        self.lag, self._lag_since_s = LagHistogram(), 0.0
        self._meter = ProcessingMeter() if config.measures_processing else None
        self._sent_packets = 0
        self.counters: dict[str, int] = Counter()  #: of the driver
        self._loop = PacketLoop(
            dispatch=self.dispatch,
            deadline_s=lambda: self.core.deadline_s,
            on_deadline=self._on_deadline,
            meter=self._meter,
        )
        service = service_face(config)
        self._local = LocalFace(self._loop, self.dispatch, face_id=LOCAL_FACE if service is None else service)
        self._links: list[PacketSocket] = []
        self._faces: dict[int, ApplicationFace] = {}  #: of links and applications, by ID
        self._applications: Applications | None = None  #: what they are behind, where there is a forwarder
        self._stopping = trio.Event()
        self._records: RecordWriter
        self._control = ControlServer(control, self)
        self._loop.watch(control.fileno())
        if self._log is not None:
            self._loop.call(self._log.fileno(), self._on_log_written)

    async def run(self) -> None:
        """Run until told to stop, or until the supervisor has gone. Raises: OSError where a face cannot be opened."""
        self._lag_since_s = time.monotonic()
        with RecordWriter(Path(self.config.records_path)) as self._records, self._log or contextlib.nullcontext():
            try:
                if self._restored is not None:
                    self.dispatch(self._restored)
                    self._restored = None  # the core has it now
                async with trio.open_nursery() as nursery:
                    self._open_faces(nursery)
                    nursery.start_soon(self._loop.run)
                    nursery.start_soon(self._records.flush_regularly)
                    nursery.start_soon(self._count_regularly)
                    nursery.start_soon(self._control.serve)
                    gc.collect()
                    gc.freeze()  # what lives now lives to the end: keep the collector from looking at it again
                    gc.set_threshold(*GC_THRESHOLDS)
                    if self.config.process == "proxy":  # before, the forwarder tells clients that there is none
                        with trio.move_on_after(ATTACH_LIMIT_S):
                            await self._local.attached.wait()
                    self._control.say({"event": "ready", "t_s": time.monotonic()})
                    await self._stopping.wait()
                    nursery.cancel_scope.cancel()
            finally:
                self.report_counters()
                for face in self._links:
                    face.close()
                if self._applications is not None:
                    self._applications.close()

    def stop(self) -> None:
        """End ``run``."""
        self._stopping.set()
        self.give_way()

    def give_way(self) -> None:
        """A trio task of this program was given something to do."""
        self._loop.give_way()

    # ------------------------------------------------------------------ events in, effects out

    def dispatch(self, event: Event) -> None:
        """Give an event to the core and do what it wants."""
        now_s, self._sent_packets = time.monotonic(), 0
        for effect in self.core.handle(event, now_s=now_s):
            self._perform(effect)
        if self._meter is None:
            return
        size_bytes = len(event.packet) if isinstance(event, PacketReceived) else 0
        self._meter.handled(now_s, time.monotonic(), size_bytes=size_bytes, sent_packets=self._sent_packets)

    def _perform(self, effect: Effect) -> None:
        if isinstance(effect, Send):
            self._sent_packets += 1
            if effect.face_id == self._local.face_id:
                self._local.send(effect.packet)
            elif (face := self._faces.get(effect.face_id)) is not None:
                face.send(effect.packet)
            else:
                self.counters["send_errors"] += 1  # that application has just gone
        elif isinstance(effect, Log):
            self._records.write(effect.record)
            if isinstance(effect.record, SessionChanged | FaceChanged | PrefixChanged):
                self._control.say_record(effect.record)
        else:
            assert self._log is not None, "the core persists only where there is a log"
            self._log.put(effect)

    def _on_log_written(self) -> None:
        assert self._log is not None, "it was watched"
        for result in self._log.take():
            self.dispatch(result)

    def _on_deadline(self) -> None:
        due_s, now_s = self.core.deadline_s, time.monotonic()
        if due_s is not None and due_s <= now_s:
            if due_s > 0:  # the very first is due since ever
                self.lag.add(now_s - due_s)
            self.dispatch(TimerExpired())

    # ------------------------------------------------------------------ faces

    def _open_faces(self, nursery: trio.Nursery) -> None:
        config = self.config
        if config.process == "proxy":
            assert config.proxy is not None, "checked by load_config"
            nursery.start_soon(self._local.connect_forever, Path(config.proxy.forwarder_socket))
            return
        assert config.forwarder is not None, "checked by load_config"
        for face in config.forwarder.faces:
            link = self._faces[face.face_id] = open_udp_face(face, self.counters)
            self._links.append(link)
        if config.forwarder.service_socket is not None:
            listener = listen_for_service(Path(config.forwarder.service_socket))
            nursery.start_soon(self._local.accept_forever, listener)
        nursery.start_soon(self._watch_interfaces)
        for packets in self._links:
            self._loop.add(packets)
        self._open_applications(config.forwarder)

    def _open_applications(self, config: ForwarderConfig) -> None:
        forwarder = forwarder_of(self.core)
        assert forwarder is not None, "faces are opened in a forwarder's process"
        management = forwarder.management
        management.started_s = time.monotonic()
        management.unix_offset_s = time.time() - management.started_s

        def add_face(remote_uri: str, local_uri: str) -> int:
            face_id = forwarder.add_local_face()
            management.face_added(face_id, remote_uri=remote_uri, local_uri=local_uri)
            return face_id

        self._applications = applications = Applications(
            self._loop,
            self._faces,
            add_face=add_face,
            remove_face=lambda face_id: self.dispatch(ApplicationLeft(face_id)),
            deliver=lambda face_id, packet: self.dispatch(PacketReceived(face_id, packet)),
            counters=self.counters,
        )
        if config.application_socket is not None:
            applications.listen_unix(Path(config.application_socket))
        if config.application_port is not None:
            applications.listen_loopback(config.application_port)

    async def _watch_interfaces(self) -> None:
        assert self.config.forwarder is not None, "checked by load_config"
        faces = {socket.if_nametoindex(face.intf): face for face in self.config.forwarder.faces}
        carriers = dict.fromkeys(faces, True)  # what the core assumes
        mtus_bytes = {index: face.mtu_bytes for index, face in faces.items()}
        watch = InterfaceWatch()
        self._loop.watch(watch.fileno())
        try:
            async for index, up, mtu_bytes in watch.changes():
                face = faces.get(index)
                if face is None:
                    continue
                if carriers[index] is not up:
                    carriers[index] = up
                    self.dispatch(CarrierChanged(face.face_id, up))
                if mtu_bytes is not None and mtus_bytes[index] != mtu_bytes:
                    mtus_bytes[index] = mtu_bytes
                    self.dispatch(MtuChanged(face.face_id, mtu_bytes))
        finally:
            watch.close()

    # ------------------------------------------------------------------ what it says of itself

    async def _count_regularly(self) -> None:
        while True:
            await trio.sleep(COUNTERS_INTERVAL_S)
            self.report_counters()
            if self._applications is not None:
                self._applications.tend()

    def report_counters(self) -> CountersReported:
        """Append a CountersReported record and return it."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        counters: Counter[str] = Counter(self.counters)
        counters.update(self._local.counters)
        counters.update(counters_of(self.core))
        if self._log is not None:
            counters.update(self._log.counters_now())
        if self._records.bytes_lost:
            counters["record_bytes_lost"] = self._records.bytes_lost
        now_s, lag_since_s = time.monotonic(), self._lag_since_s
        lag_bins, lag_max_ms = self.lag.take()
        self._lag_since_s = now_s
        node, process = self.config.node, self.config.process
        if self._meter is not None:
            self._records.write(ProcessingMeasured(now_s, lag_since_s, node, process, *self._meter.take()))
        report = CountersReported(
            now_s,
            node,
            process,
            usage.ru_utime + usage.ru_stime,
            usage.ru_maxrss * 1024,
            lag_since_s,
            lag_bins,
            lag_max_ms,
            sent_messages(self.core),
            dict(counters),
            bounds_of(self.config),
        )
        self._records.write(report)
        return report

    def report_status(self, *, writes: bool = True) -> dict[str, Any]:
        """Append a StateReported record per view, where *writes*, and return the status of this node for its supervisor."""
        for record in reported_state(self.core, self.config.node, time.monotonic()) if writes else ():
            self._records.write(record)
        return status_of(self.core)

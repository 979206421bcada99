"""A simulated run's records: into the files that the node programs of an emulated run write, or kept in memory."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import msgspec

from experiments.history import LEDGER_FILE
from experiments.spec import Experiment
from proxy.records import Record
from testbed.faults.packets.rules import MessageHit
from testbed.node_config import node_configs
from testbed.plan import NetworkPlan
from testbed.simulation.controlled import ControlledSimulation
from testbed.simulation.processing import ProcessTimes

#: Records that wait to be written: of one process, and of all together.
BUFFER_MAX_BYTES: Final = 256 * 1024
BUFFERS_MAX_BYTES: Final = 64 * 1024 * 1024
_LEDGER: Final = LEDGER_FILE.removesuffix(".jsonl")


class SimulatedRecords:
    """Takes the records of all processes and appends them to ``<process>.jsonl``."""

    def __init__(self, raw: Path) -> None:
        self._raw = raw
        self._encoder = msgspec.json.Encoder()
        self._buffers: dict[str, bytearray] = {}
        self._waiting_bytes = 0  #: in all buffers, those written meanwhile included

    def __call__(self, process: str, record: Record) -> None:
        """Take in one record."""
        buffer = self._buffers.setdefault(process, bytearray())
        before = len(buffer)
        self._encoder.encode_into(record, buffer, -1)
        buffer += b"\n"
        self._waiting_bytes += len(buffer) - before
        if len(buffer) > BUFFER_MAX_BYTES:
            self._flush(process)
        elif self._waiting_bytes > BUFFERS_MAX_BYTES:
            self._flush_all()

    def note_message_hit(self, hit: MessageHit) -> None:
        """Take in what a message fault did."""
        buffer = self._buffers.setdefault(_LEDGER, bytearray())
        self._encoder.encode_into(hit, buffer, -1)
        buffer += b"\n"

    def write_configs(self, plan: NetworkPlan) -> None:
        """Write the configuration of every process. Paths are relative to the run folder, wherever that is."""
        folder = self._raw / "config"
        folder.mkdir()
        for name, config in node_configs(plan):
            config["records_path"] = f"raw/{name}.jsonl"
            if "proxy" in config:
                config["proxy"]["log_path"] = f"state/{config['node']}.sqlite3"
            self._buffers.setdefault(name, bytearray())  # so that each has a file, be it an empty one
            (folder / f"{name}.json").write_bytes(msgspec.json.format(msgspec.json.encode(config), indent=2) + b"\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._flush_all()

    def _flush_all(self) -> None:
        self._waiting_bytes = 0
        for process in self._buffers:
            self._flush(process)

    def _flush(self, process: str) -> None:
        with (self._raw / f"{process}.jsonl").open("ab") as file:
            file.write(self._buffers[process])
        self._buffers[process].clear()


@contextmanager
def no_search_for_cycles() -> Iterator[None]:
    """Simulate without the garbage collector: what a simulator makes, reference counting frees, and looking doubles the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
            gc.collect()


def simulate(
    experiment: Experiment,
    plan: NetworkPlan,
    on_record: Callable[[str, Record], None],
    on_message_hit: Callable[[MessageHit], None] = lambda _: None,
    processing: Mapping[str, ProcessTimes] | None = None,
) -> ControlledSimulation:
    """Return the network of *experiment*, built; no time has passed yet. *processing*: as `ControlledSimulation` takes it."""
    return ControlledSimulation(
        plan,
        on_record=on_record,
        clock_skew_ppm=experiment.clock_skew_ppm,
        on_message_hit=on_message_hit,
        processing=processing,
    )

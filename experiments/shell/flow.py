"""A conference that goes on until the user of the shell leaves."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import trio

from experiments.flow import ConferenceFlow


@dataclass
class ShellFlow(ConferenceFlow):
    """Everybody joins; workload and scheduled faults run from t = 0 on, with the user at the prompt."""

    on_ready: Callable[[], None] = lambda: None  #: is told when the prompt may come
    left: trio.Event = field(default_factory=trio.Event)  #: set when the user leaves
    epoch_s: float = math.nan  #: CLOCK_MONOTONIC at t = 0
    is_over: bool = False  #: the time that the experiment asks for has passed
    #: What of the faults the user knows already: fault ID -> whether it is healed.
    told: dict[str, bool] = field(default_factory=dict)

    async def hold(self) -> None:
        """As its base, and until the user leaves. Raises: RunFailureError if the conference does not come about."""
        self.epoch_s = await self._begin()
        begin_measurement = self.on_epoch

        def begin() -> None:
            begin_measurement()
            self.on_ready()

        self.on_epoch = begin
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._go_on)
            await self.left.wait()
            nursery.cancel_scope.cancel()
        if not self.is_over:
            self.on_end()
        self.note_clock(left_s=self.pace.now_s())
        await self.pace.together(
            [
                partial(self._ask_quietly, f"{device}.forwarder", ["end-schedule"])
                for device in self.experiment.topology.ues
            ]
        )
        await self._settle()

    async def _go_on(self) -> None:
        await self._run_to_end(self.epoch_s)
        self.is_over = True
        if self.experiment.workloads or self.experiment.faults:
            self.progress.note(
                f"t = {self.experiment.settings.duration_s:g} s: the experiment is over; the network stays up until `exit`"
            )
        await self._pass_time(math.inf, self.epoch_s, self.told)

    def _announce_faults(self, known: Mapping[str, bool], epoch_s: float) -> dict[str, bool]:
        """As its base, but for what the user has done and hence knows."""
        self.told |= super()._announce_faults({**known, **self.told}, epoch_s)
        return self.told

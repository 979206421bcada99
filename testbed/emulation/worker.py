"""One thread for everything that blocks and must not run twice at once: Mininet above all."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import outcome
import trio

P = ParamSpec("P")
T = TypeVar("T")


class WorkerThread:
    """Runs calls one after another, always in the same thread.

    trio's own worker threads will not do: they run side by side, and they end when idle for ten seconds; a program that
    asked to be killed with its parent is killed when the thread that started it ends (prctl(2), PR_SET_PDEATHSIG).
    """

    def __init__(self, name: str) -> None:
        # Unbounded, but each entry belongs to a task that waits for it.
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        # A daemon: a call that never returns must not keep the interpreter from ending.
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            call()

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run *function* in the thread and return what it returns, or raise what it raises.

        Cancelling does not interrupt the call: the task waits for its end, as with trio.to_thread.run_sync.
        """
        return await self._run(lambda: function(*args, **kwargs), abandon_on_cancel=False)

    async def run_abandonable(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """As `run`, but a task that is cancelled does not wait: the call goes on without it, and calls after it wait."""
        return await self._run(lambda: function(*args, **kwargs), abandon_on_cancel=True)

    async def _run(self, function: Callable[[], T], *, abandon_on_cancel: bool) -> T:
        task, token = trio.lowlevel.current_task(), trio.lowlevel.current_trio_token()
        abandoned = False

        def call() -> None:
            result = outcome.capture(function)
            with contextlib.suppress(trio.RunFinishedError):  # nobody waits any more
                token.run_sync_soon(deliver, result)

        def deliver(result: outcome.Outcome[T]) -> None:
            if not abandoned:
                trio.lowlevel.reschedule(task, result)

        def abort(_raise_cancel: Callable[[], Any]) -> trio.lowlevel.Abort:
            nonlocal abandoned
            abandoned = abandon_on_cancel
            return trio.lowlevel.Abort.SUCCEEDED if abandoned else trio.lowlevel.Abort.FAILED

        await trio.lowlevel.checkpoint_if_cancelled()
        self._calls.put(call)
        result: T = await trio.lowlevel.wait_task_rescheduled(abort)
        return result

    def close(self) -> None:
        """Let the thread end after the calls that are already waiting; does not wait for it."""
        self._calls.put(None)

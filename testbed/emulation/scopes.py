"""Three pieces of structured concurrency that trio leaves to its users."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Awaitable, Callable, Iterator
from types import FrameType

import trio


async def run_undisturbed(function: Callable[[], Awaitable[None]]) -> None:
    """Run *function* to its end, whatever is cancelled and however often the user interrupts meanwhile.

    The caller bounds it. A shield alone is not enough: trio raises KeyboardInterrupt in whatever code of whatever task
    the signal happens to hit, and wakes the main task with it, shielded or not. So the work is done by a child task,
    while an interrupt that would be raised is kept; the main task's wait for its child takes note of the other kind.

    Raises: KeyboardInterrupt at the end, by itself or in a group, if there was an interrupt.
    """

    async def child() -> None:
        with trio.CancelScope(shield=True):
            await function()

    with keeping_interrupts():
        async with trio.open_nursery() as nursery:  # noqa: ASYNC112  the nursery is what takes note of the interrupt
            nursery.start_soon(child)


@contextlib.contextmanager
def keeping_interrupts() -> Iterator[None]:
    """Keep a KeyboardInterrupt that the handler of SIGINT raises until the end of the block.

    The handler itself is called as before, whatever else it does. In a thread other than the main one this does
    nothing: signals do not come there.
    """
    before = signal.getsignal(signal.SIGINT)
    if not callable(before) or threading.current_thread() is not threading.main_thread():
        yield
        return
    kept = False

    def keep(number: int, frame: FrameType | None) -> None:
        nonlocal kept
        try:
            before(number, frame)
        except KeyboardInterrupt:
            kept = True

    signal.signal(signal.SIGINT, keep)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is keep:  # else somebody has set another, who means it
            signal.signal(signal.SIGINT, before)
    if kept:
        raise KeyboardInterrupt


class ShieldedTasks:
    """Tasks of a nursery that a cancellation from outside does not end, only `cancel` does.

    They listen to what has to be taken down, and taking down needs them to the last. An exception of one still cancels
    the nursery.
    """

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._scopes: list[trio.CancelScope] = []

    def start_soon(self, function: Callable[..., Awaitable[object]], *args: object) -> None:
        scope = trio.CancelScope(shield=True)

        @trio.lowlevel.enable_ki_protection  # an interrupt is the main task's, not that of who happens to run
        async def run() -> None:
            with scope:
                await function(*args)

        self._scopes.append(scope)
        self._nursery.start_soon(run, name=function)

    def cancel(self) -> None:
        for scope in self._scopes:
            scope.cancel()


def lone_exception(group: BaseExceptionGroup[BaseException]) -> BaseException | None:
    """Return the only exception that is in *group*, at whatever depth; None if there are several.

    >>> lone_exception(ExceptionGroup("outer", [ExceptionGroup("inner", [ValueError("x")])]))
    ValueError('x')
    """
    inside = group.exceptions
    if len(inside) != 1:
        return None
    return lone_exception(inside[0]) if isinstance(inside[0], BaseExceptionGroup) else inside[0]

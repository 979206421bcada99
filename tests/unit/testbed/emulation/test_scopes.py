import signal
from collections.abc import AsyncIterator
from functools import partial

import pytest
import trio
import trio.testing

from testbed.emulation.scopes import ShieldedTasks, lone_exception, run_undisturbed


async def test_cancelling_does_not_reach_the_work() -> None:
    steps = []

    async def work() -> None:
        for step in range(3):
            await trio.lowlevel.checkpoint()
            steps.append(step)

    with trio.CancelScope() as scope:
        scope.cancel()
        await run_undisturbed(work)
    assert steps == [0, 1, 2]


async def interrupt_everywhere(steps: list[str]) -> None:
    """Be impatient in a task of the work's own, where trio raises it on the spot, and while everybody waits."""

    async def subtask() -> None:
        signal.raise_signal(signal.SIGINT)
        await trio.lowlevel.checkpoint()
        signal.raise_signal(signal.SIGINT)
        steps.append("subtask")

    async with trio.open_nursery() as nursery:  # noqa: ASYNC112  the point is that it is another task
        nursery.start_soon(subtask)
    signal.raise_signal(signal.SIGINT)
    await trio.testing.wait_all_tasks_blocked()
    steps.append("work")


def test_interrupts_wait_for_the_end_of_the_work() -> None:
    steps: list[str] = []

    async def main() -> None:
        await run_undisturbed(partial(interrupt_everywhere, steps))

    with pytest.raises(KeyboardInterrupt):
        trio.run(main)
    assert steps == ["subtask", "work"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_interrupt_that_the_main_task_is_woken_with_waits_too() -> None:
    ended = []

    @trio.lowlevel.enable_ki_protection
    async def work() -> None:
        signal.raise_signal(signal.SIGINT)
        await trio.testing.wait_all_tasks_blocked()  # it has been delivered
        ended.append(True)

    async def main() -> None:
        await run_undisturbed(work)

    with pytest.RaisesGroup(KeyboardInterrupt):
        trio.run(main)
    assert ended


def test_who_receives_the_signal_otherwise_still_does() -> None:
    received = []

    async def main() -> None:
        with trio.open_signal_receiver(signal.SIGINT) as signals:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(receive, signals)
                await run_undisturbed(work)

    async def receive(signals: AsyncIterator[int]) -> None:
        received.append(await anext(signals))

    async def work() -> None:
        signal.raise_signal(signal.SIGINT)
        await trio.testing.wait_all_tasks_blocked()

    trio.run(main)
    assert received == [signal.SIGINT]


async def test_failures_of_the_work_come_out() -> None:
    async def work() -> None:
        await trio.lowlevel.checkpoint()
        raise ValueError("from the work")

    with pytest.RaisesGroup(pytest.RaisesExc(ValueError, match="from the work")):
        await run_undisturbed(work)


def test_two_exceptions_are_not_one() -> None:
    assert lone_exception(ExceptionGroup("", [ValueError(), ExceptionGroup("", [KeyError()])])) is None


async def test_shielded_tasks_live_until_they_are_cancelled_themselves() -> None:
    ended = []

    async def listen(name: str) -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append(name)

    with trio.CancelScope() as outer:
        async with trio.open_nursery() as nursery:
            tasks = ShieldedTasks(nursery)
            outer.cancel()
            tasks.start_soon(listen, "one")  # even when it is too late
            with trio.CancelScope(shield=True):
                await trio.testing.wait_all_tasks_blocked()
            assert ended == []
            tasks.cancel()
    assert ended == ["one"]


async def test_what_a_shielded_task_raises_cancels_the_nursery() -> None:
    async def fail() -> None:
        await trio.lowlevel.checkpoint()
        raise ValueError("from the task")

    with pytest.RaisesGroup(pytest.RaisesExc(ValueError, match="from the task")):
        async with trio.open_nursery() as nursery:
            ShieldedTasks(nursery).start_soon(fail)
            await trio.sleep_forever()

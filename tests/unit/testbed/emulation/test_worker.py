import threading

import pytest
import trio

from testbed.emulation.worker import WorkerThread


@pytest.fixture
def worker() -> WorkerThread:
    return WorkerThread("test")


async def test_calls_run_in_one_thread_one_at_a_time(worker: WorkerThread) -> None:
    threads: list[int] = []
    running = threading.Lock()

    def call() -> None:
        assert running.acquire(blocking=False)
        threads.append(threading.get_ident())
        running.release()

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(worker.run, call)
    assert len(threads) == 20
    assert len(set(threads)) == 1
    assert threads[0] != threading.get_ident()
    worker.close()


async def test_results_and_exceptions_come_back(worker: WorkerThread) -> None:
    assert await worker.run(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await worker.run(divmod, 7, 0)
    worker.close()


async def test_a_cancelled_caller_waits_for_the_end_of_the_call(worker: WorkerThread) -> None:
    go_on, begun, ended = threading.Event(), trio.Event(), []
    token = trio.lowlevel.current_trio_token()

    def call() -> None:
        token.run_sync_soon(begun.set)
        go_on.wait()
        ended.append(True)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker.run, call)
        await begun.wait()
        nursery.cancel_scope.cancel()
        go_on.set()
    assert ended
    worker.close()


async def test_nothing_starts_for_a_caller_that_is_cancelled(worker: WorkerThread) -> None:
    ran: list[int] = []
    with trio.CancelScope() as scope:
        scope.cancel()
        await worker.run(ran.append, 1)
    await worker.run(ran.append, 2)
    assert ran == [2]
    worker.close()


async def test_an_abandoned_call_goes_on_without_its_caller(worker: WorkerThread) -> None:
    go_on, begun, ended = threading.Event(), trio.Event(), []
    token = trio.lowlevel.current_trio_token()

    def call() -> None:
        token.run_sync_soon(begun.set)
        go_on.wait()
        ended.append(True)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker.run_abandonable, call)
        await begun.wait()
        nursery.cancel_scope.cancel()
    assert not ended
    go_on.set()
    assert await worker.run(lambda: list(ended)) == [True]
    worker.close()

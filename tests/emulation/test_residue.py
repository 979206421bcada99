"""Whatever becomes of the supervisor: nothing of a run stays, and nothing else is touched."""

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from testbed.emulation.ownership import ProcessId, clean, processes_marked
from testbed.plan import RUNTIME_ROOT, NetworkPlan
from tests.emulation.machine import namespace_of, namespaces_in_use, owned_processes, wait_until_gone

NoResidue = Callable[[], None]
ROOT = Path(__file__).parents[2]

#: Issue 2: the supervisor's death takes the whole run down within 2 s.
DEATH_LIMIT_S = 2.0


@contextmanager
def supervisor_of(plan: NetworkPlan) -> Iterator[subprocess.Popen[str]]:
    """A supervisor in a process group of its own, its network up."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.emulation.supervise", plan.run_id, str(plan.run_dir)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        start_new_session=True,
    ) as supervisor:
        assert supervisor.stdout is not None
        assert supervisor.stdout.readline() == "up\n"
        yield supervisor
        supervisor.kill()


def all_processes(plan: NetworkPlan) -> set[ProcessId]:
    """Return those that it recorded, and those that were started from Mininet."""
    owned, marked = set(owned_processes(plan).values()), set(processes_marked(plan.run_id))
    assert owned <= marked
    assert len(marked - owned) >= 3  # a bash and two sleeps
    return marked


@pytest.fixture
def foreign_things(tmp_path: Path) -> Iterator[None]:
    """A namespace with a process, a bridge, a file and a folder that somebody else made, all there afterwards."""
    name = f"fo-{uuid.uuid4().hex[:8]}"
    mine = RUNTIME_ROOT / name
    mine.mkdir(parents=True)
    (mine / "file").write_text("keep me")
    (tmp_path / "file").write_text("keep me")
    subprocess.run(["ip", "netns", "add", name], check=True)
    subprocess.run(["ip", "link", "add", name, "type", "bridge"], check=True)
    sleep = ["ip", "netns", "exec", name, "sleep", "1000"]
    with subprocess.Popen(sleep) as foreign:
        try:
            yield
            assert foreign.poll() is None
            assert (mine / "file").read_text() == "keep me"
            assert (tmp_path / "file").read_text() == "keep me"
            assert name in subprocess.check_output(["ip", "netns"], text=True)
            subprocess.run(["ip", "link", "show", name], check=True, stdout=subprocess.DEVNULL)
        finally:
            foreign.kill()
            foreign.wait()
            subprocess.run(["ip", "link", "del", name], check=True)
            subprocess.run(["ip", "netns", "del", name], check=True)
            (mine / "file").unlink()
            mine.rmdir()


@pytest.mark.usefixtures("foreign_things")
def test_after_a_normal_end(plan: NetworkPlan, assert_no_residue: NoResidue) -> None:
    with supervisor_of(plan) as supervisor:
        ours = all_processes(plan)
        output, _ = supervisor.communicate()
        assert output == "down\n"
        assert supervisor.returncode == 0
    assert [who for who in ours if who.is_alive()] == []
    assert_no_residue()
    assert clean() == []


@pytest.mark.usefixtures("foreign_things")
@pytest.mark.parametrize("times", [1, 3])
def test_after_interrupts_at_the_terminal(plan: NetworkPlan, assert_no_residue: NoResidue, times: int) -> None:
    with supervisor_of(plan) as supervisor:
        ours = all_processes(plan)
        assert not any(os.getpgid(who.pid) == supervisor.pid for who in ours)  # a terminal would not reach them
        for _ in range(times):
            os.killpg(supervisor.pid, signal.SIGINT)
        assert supervisor.wait() == 130
    assert [who for who in ours if who.is_alive()] == []
    assert_no_residue()
    assert clean() == []


@pytest.mark.usefixtures("foreign_things")
def test_after_kill_9_everything_ends_by_itself_and_clean_removes_the_record(
    plan: NetworkPlan, assert_no_residue: NoResidue
) -> None:
    with supervisor_of(plan) as supervisor:
        ours = all_processes(plan)
        namespaces = {namespace_of(who.pid) for who in ours} - {namespace_of("self")}
        assert namespaces
        supervisor.kill()
        assert wait_until_gone(ours, limit_s=DEATH_LIMIT_S) == []
    assert not namespaces & namespaces_in_use()
    assert plan.runtime_dir.exists()
    assert clean() == [f"run {plan.run_id}: {plan.runtime_dir} removed"]
    assert_no_residue()


@pytest.mark.usefixtures("foreign_things")
def test_what_outlives_supervisor_and_holders_is_found_by_clean(
    plan: NetworkPlan, assert_no_residue: NoResidue
) -> None:
    with supervisor_of(plan) as supervisor:
        ours = all_processes(plan)
        holder_program = owned_processes(plan)["holders"]
        os.kill(holder_program.pid, signal.SIGSTOP)  # so that nobody ends what was started from Mininet
        supervisor.kill()
        supervisor.wait()
        assert holder_program.is_alive()
        done = clean()
    assert f"run {plan.run_id}: process {holder_program.pid} ended" in done
    assert [who for who in ours if who.is_alive()] == []
    assert_no_residue()


def test_clean_leaves_a_live_run_alone(plan: NetworkPlan, assert_no_residue: NoResidue) -> None:
    with supervisor_of(plan) as supervisor:
        assert not any(plan.run_id in line for line in clean())
        assert supervisor.poll() is None
        assert all(who.is_alive() for who in owned_processes(plan).values())
        output, _ = supervisor.communicate()
        assert output == "down\n"
    assert_no_residue()

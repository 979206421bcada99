import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.emulation import ownership
from testbed.emulation.children import RUN_ID_VARIABLE
from testbed.emulation.ownership import Ownership, ProcessId, clean, find_leftovers

SLEEPER = (sys.executable, "-S", "-c", "print(flush=True); input()")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "hconf"


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with start_sleeper() as process:
        yield process
        process.kill()


def start_sleeper(**environment: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        SLEEPER, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, **environment}
    )
    assert process.stdout is not None
    process.stdout.readline()  # it runs: its environment can be read
    return process


def identity(process: subprocess.Popen[bytes]) -> ProcessId:
    found = ProcessId.of(process.pid)
    assert found is not None
    return found


def dead_process() -> ProcessId:
    with start_sleeper() as process:
        was = identity(process)
        process.kill()
    return was


def bury_supervisor(owner: Ownership, supervisor: ProcessId) -> None:
    path = owner.directory / ownership.OWNER_FILE
    record = json.loads(path.read_bytes())
    record["supervisor"] = [supervisor.pid, supervisor.start_ticks]
    path.write_text(json.dumps(record))


def test_a_zombie_is_not_alive(sleeper: subprocess.Popen[bytes]) -> None:
    was = identity(sleeper)
    assert was.is_alive()
    sleeper.kill()
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)  # ended, but not reaped
    assert not was.is_alive()


def test_a_command_name_with_brackets_does_not_confuse() -> None:
    rename = "import ctypes; ctypes.CDLL(None).prctl(15, b'a) R 1 (b', 0, 0, 0); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", rename], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert "a) R 1 (b" in Path(f"/proc/{process.pid}/stat").read_text()
        ours = ProcessId.of(os.getpid())
        assert ours is not None
        assert identity(process).start_ticks >= ours.start_ticks
        process.kill()


def test_a_live_run_is_left_alone(root: Path, sleeper: subprocess.Popen[bytes]) -> None:
    owner = Ownership("live", root)
    owner.claim()
    owner.record({"node": sleeper.pid})
    assert find_leftovers(root) == []
    assert clean(root) == []
    assert sleeper.poll() is None
    owner.release()
    assert not root.exists()


def test_a_run_id_is_taken_while_its_directory_is_there(root: Path) -> None:
    first = Ownership("one", root)
    first.claim()
    with pytest.raises(FileExistsError, match="one"):
        Ownership("one", root).claim()
    assert [entry.name for entry in root.iterdir()] == ["one"]
    first.release()
    Ownership("one", root).claim()


def test_leftovers_of_a_dead_run_are_removed(root: Path, sleeper: subprocess.Popen[bytes]) -> None:
    owner = Ownership("dead", root)
    owner.claim()
    owner.record({"node": sleeper.pid})
    (owner.directory / "csr1.sock").touch()
    bury_supervisor(owner, dead_process())
    (found,) = find_leftovers(root)
    assert found.processes == (identity(sleeper),)

    done = clean(root)
    assert done == [f"run dead: process {sleeper.pid} ended", f"run dead: {owner.directory} removed"]
    assert sleeper.wait() == -9
    assert not root.exists()
    assert clean(root) == []


def test_a_number_that_another_process_has_now_is_not_killed(root: Path, sleeper: subprocess.Popen[bytes]) -> None:
    owner = Ownership("dead", root)
    owner.claim()
    owner.processes["node"] = ProcessId(sleeper.pid, identity(sleeper).start_ticks - 1)
    owner.record({})
    bury_supervisor(owner, dead_process())
    clean(root)
    assert sleeper.poll() is None
    assert not root.exists()


def test_processes_are_known_by_their_environment_too(root: Path, sleeper: subprocess.Popen[bytes]) -> None:
    owner = Ownership("dead", root)
    owner.claim()
    bury_supervisor(owner, dead_process())
    with start_sleeper(**{RUN_ID_VARIABLE: "dead"}) as ours, start_sleeper(**{RUN_ID_VARIABLE: "dead2"}) as others:
        clean(root)
        assert ours.wait() == -9
        assert others.poll() is None
        others.kill()
    assert sleeper.poll() is None


def test_after_a_reboot_only_the_directory_is_left(root: Path, sleeper: subprocess.Popen[bytes]) -> None:
    owner = Ownership("before", root)
    owner.claim()
    owner.record({"node": sleeper.pid})
    path = owner.directory / ownership.OWNER_FILE
    path.write_text(path.read_text().replace(ownership.boot_id(), "another-boot"))
    clean(root)
    assert sleeper.poll() is None
    assert not root.exists()


def test_a_run_of_another_pid_namespace_cannot_be_judged(root: Path) -> None:
    owner = Ownership("elsewhere", root)
    owner.claim()
    bury_supervisor(owner, dead_process())
    path = owner.directory / ownership.OWNER_FILE
    path.write_text(path.read_text().replace(ownership.pid_namespace(), "pid:[1]"))
    assert clean(root) == []
    assert owner.directory.exists()


def test_what_is_not_ours_stays(root: Path, tmp_path: Path) -> None:
    root.mkdir()
    (root / "file").write_text("somebody's")
    (root / "folder").mkdir()
    (root / "record").mkdir()
    (root / "record" / "owner.json").write_text('{"run_id": "another", "supervisor": [1, 1]}')
    (root / "garbage").mkdir()
    (root / "garbage" / "owner.json").write_bytes(b"\xff\x00")
    elsewhere = tmp_path / "elsewhere"
    owner = Ownership("real", elsewhere)
    owner.claim()
    bury_supervisor(owner, dead_process())
    (root / "real").symlink_to(owner.directory)
    before = sorted(root.rglob("*"))
    assert clean(root) == []
    assert sorted(root.rglob("*")) == before
    assert owner.directory.exists()


def test_a_run_that_died_while_it_claimed_is_removed(root: Path) -> None:
    dead, me = dead_process(), ProcessId.of(os.getpid())
    assert me is not None
    for who in (dead, me):
        (root / f".new-{who.pid}-{who.start_ticks}").mkdir(parents=True)
    clean(root)
    assert [entry.name for entry in root.iterdir()] == [f".new-{me.pid}-{me.start_ticks}"]

"""The folder of a virtual machine's files: nobody else's is touched, and none stays."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from testbed.vm.scratch import remove_abandoned, room_needed, scratch_folder
from topologies.errors import CapabilityError

ROOT = Path(__file__).parents[4]


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_it_is_there_and_gone_and_another_one_at_work_is_let_be(temporary: Path) -> None:
    with scratch_folder() as one, scratch_folder() as other:
        (one / "initrd").write_bytes(b"x")
        remove_abandoned(temporary)
        assert (one / "initrd").exists()
        assert one != other
    assert list(temporary.iterdir()) == []


def test_what_a_killed_one_left_goes_when_the_next_one_starts(temporary: Path) -> None:
    program = (
        "import time; from testbed.vm.scratch import scratch_folder\n"
        "with scratch_folder() as folder: (folder / 'initrd').touch(); print(folder, flush=True); time.sleep(60)"
    )
    environment = {**os.environ, "TMPDIR": str(temporary), "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE) as killed:
        assert killed.stdout is not None
        left = Path(killed.stdout.readline().decode().strip())
        remove_abandoned(temporary)
        assert (left / "initrd").exists()  # it lives
        killed.send_signal(signal.SIGKILL)
    (temporary / "hconf-vm-being-made").mkdir()  # no lock yet: somebody is making it
    (temporary / "others").mkdir()
    with scratch_folder():
        assert not left.exists()
    assert sorted(path.name for path in temporary.iterdir()) == ["hconf-vm-being-made", "others"]


def test_no_room_says_what_mends_it(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CapabilityError, match=r"No space left on device .*TMPDIR"), room_needed():
        Path("/dev/full").write_bytes(b"x")
    monkeypatch.setattr("tempfile.tempdir", str(temporary / "not there"))
    with pytest.raises(CapabilityError, match=r"not there.*No such file or directory .*TMPDIR"), scratch_folder():
        pass

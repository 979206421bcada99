"""`hconf vm exec`, from outside: what passes in and out. Each boots a guest, so only `./hconf test --vm` runs them."""

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.skipif("HCONF_TEST_VM" not in os.environ, reason="boots virtual machines; see ./hconf test --vm"),
    pytest.mark.timeout(400),
]

#: A guest may take this long to boot where the processor is emulated and the machine busy.
BOOT_LIMIT_S = 200


def hconf_vm(*arguments: str, cwd: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "experiments.cli", "vm", *arguments]
    root = str(Path(__file__).parents[2])
    return subprocess.Popen(
        command,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": root, "TMPDIR": str(cwd)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_output_exit_code_and_what_is_brought_out(tmp_path: Path) -> None:
    (tmp_path / "given").write_text("from the host")
    script = (
        "cat given; echo problem >&2; mkdir -p made/deep; uname -r > made/deep/kernel; echo gone > given; "
        'echo "$HCONF_VM" > made/vm; exit 7'
    )
    guest = hconf_vm("exec", "--bring-out", "made", "--", "sh", "-c", script, cwd=tmp_path)
    out, err = guest.communicate(timeout=BOOT_LIMIT_S)
    assert (guest.returncode, out) == (7, b"from the host")
    assert err.endswith(b"problem\n")
    assert b" is up after " in err
    assert (tmp_path / "given").read_text() == "from the host"  # the guest wrote to its memory
    kernel = (tmp_path / "made" / "deep" / "kernel").read_text().strip()
    assert f"kernel {kernel} under ".encode() in err
    assert '"memory_mb"' in (tmp_path / "made" / "vm").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["given", "made"]  # nothing in TMPDIR, either


def test_an_interrupt_reaches_the_program_and_what_it_made_comes_out(tmp_path: Path) -> None:
    script = "trap 'echo interrupted > made; exit 130' INT; echo ready; while :; do sleep 0.2; done"
    guest = hconf_vm("exec", "--bring-out", "made", "--", "sh", "-c", script, cwd=tmp_path)
    assert guest.stdout is not None
    assert select.select([guest.stdout], [], [], BOOT_LIMIT_S)[0]
    guest.send_signal(signal.SIGINT)
    guest.communicate(timeout=60)
    assert guest.returncode == 130
    assert (tmp_path / "made").read_text() == "interrupted\n"


def test_an_interrupt_while_it_boots_ends_it_at_once(tmp_path: Path) -> None:
    guest = hconf_vm("exec", "--accelerator", "tcg", "--", "true", cwd=tmp_path)
    while not any(path.name.startswith("hconf-vm-") for path in tmp_path.iterdir()):
        assert guest.poll() is None
    children = Path(f"/proc/{guest.pid}/task/{guest.pid}/children")
    while not children.read_text().split():
        assert guest.poll() is None
    (qemu,) = children.read_text().split()
    qemu_pidfd = os.pidfd_open(int(qemu))
    guest.send_signal(signal.SIGINT)
    out, err = guest.communicate(timeout=30)
    assert (guest.returncode, out) == (130, b"")
    assert b"Traceback" not in err
    assert select.select([qemu_pidfd], [], [], 10.0)[0]
    os.close(qemu_pidfd)
    assert list(tmp_path.iterdir()) == []


def test_a_supervisor_that_is_killed_takes_the_guest_along(tmp_path: Path) -> None:
    guest = hconf_vm("exec", "--accelerator", "tcg", "--", "true", cwd=tmp_path)
    children = Path(f"/proc/{guest.pid}/task/{guest.pid}/children")
    while not children.read_text().split():
        assert guest.poll() is None
    qemu_pidfd = os.pidfd_open(int(children.read_text().split()[0]))
    while b"qemu" not in Path(f"/proc/{int(children.read_text().split()[0])}/cmdline").read_bytes().split(b"\0")[0]:
        pass  # setpriv becomes QEMU
    guest.kill()
    guest.communicate()
    assert select.select([qemu_pidfd], [], [], 10.0)[0]
    os.close(qemu_pidfd)

"""`hconf vm`, from outside: what passes in and out, and a whole run. Each boots a guest, so only `./hconf test --vm` runs them."""

import csv
import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from testbed.vm.scratch import remove_abandoned

pytestmark = [
    pytest.mark.skipif("HCONF_TEST_VM" not in os.environ, reason="boots virtual machines; see ./hconf test --vm"),
    pytest.mark.timeout(400),
]

#: A guest may take this long to boot where the processor is emulated and the machine busy.
BOOT_LIMIT_S = 300


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


def test_a_program_that_a_signal_ends_is_told_of(tmp_path: Path) -> None:
    guest = hconf_vm("exec", "--", "sh", "-c", "kill -SEGV $$", cwd=tmp_path)
    out, err = guest.communicate(timeout=BOOT_LIMIT_S)
    assert (guest.returncode, out) == (128 + signal.SIGSEGV, b"")
    assert b"the command was ended by signal 11 (Segmentation fault)" in err


@pytest.mark.timeout(1_200)
def test_a_conference_over_netem_links_comes_to_its_end(tmp_path: Path) -> None:
    experiments = Path(__file__).parents[2] / "experiments"
    chosen = """
[[fault]]
at_s = 12.0
for_s = 5.0
kind = "impair"
target = "csr2-ue3"
sender = "csr2"
match = "udp dst-port 6363"
loss_ratio = 0.5
"""
    (tmp_path / "chosen.toml").write_text((experiments / "netem-in-vm.toml").read_text("utf-8") + chosen, "utf-8")
    guest = hconf_vm("run", "chosen.toml", "--out", "run", cwd=tmp_path)
    out, err = guest.communicate(timeout=1_100)
    assert guest.returncode == 0, (out + err).decode()
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_bytes())
    assert (manifest["verdict"], manifest["link_backend"]) == ("pass", "netem")
    assert manifest["kernel"].split()[1] in err.decode()  # the guest's
    assert manifest["vm"]["host_kernel"].split()[1] == os.uname().release
    with (tmp_path / "run" / "links.csv").open(newline="") as file:
        links = list(csv.DictReader(file))
    assert len(links) == 24
    assert all(int(row["packets"]) > 10 for row in links)  # as the kernel has counted
    lossy = [row for row in links if float(row["configured_loss_ratio"])]
    assert len(lossy) == 8
    assert sum(int(row["dropped_loss"]) for row in lossy) > 0
    with (tmp_path / "run" / "faults.csv").open(newline="") as file:
        faults = list(csv.DictReader(file))
    assert [(row["kind"], row["verified"]) for row in faults] == [("impair", "true")] * 2
    assert json.loads(faults[1]["parameters"])["match"] == "udp dst-port 6363"
    assert (tmp_path / "run" / "report.html").stat().st_size > 10_000


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
    remove_abandoned(tmp_path)  # as the next one does before anything else
    assert list(tmp_path.iterdir()) == []

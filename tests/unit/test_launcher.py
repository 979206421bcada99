"""The launcher `./hconf`, run for real in a folder of its own, with a Python, an apt-get and an id that we control."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

LAUNCHER = Path(__file__).resolve().parents[2] / "hconf"

#: What the launcher may use of a system that has only what is essential. Paths are sought in the usual places.
ESSENTIAL = ("sh", "cat", "cksum", "dirname", "flock", "grep", "mkdir", "readlink", "rm", "sleep", "tail")

#: A Python that notes how it was called, makes "virtual environments", and "installs" a command that echoes.
PYTHON = """#!/bin/sh
PATH=/usr/bin:/bin
echo "python $*" >>"{calls}"
case "$*" in
"-m venv "*)
    mkdir -p "$3/bin"
    : >"$3/pyvenv.cfg"
    ln -s "{python}" "$3/bin/python" ;;
*"install --require-hashes"*)
    [ ! -e "{broken_network}" ] || {{ echo "no route to the index" >&2; exit 1; }} ;;
*"install --no-deps"*)
    for root; do :; done
    printf '#!/bin/sh\\necho "ran: $*"\\nexit "${{EXIT_CODE:-0}}"\\n' >"$root/.venv/bin/hconf"
    chmod +x "$root/.venv/bin/hconf" ;;
-V) echo "Python 3.11.99" ;;
esac
"""

#: An apt-get that notes how it was called and "installs" mnexec.
APT_GET = """#!/bin/sh
PATH=/usr/bin:/bin
echo "apt-get $*" >>"{calls}"
case "$*" in
*" install "*)
    [ ! -e "{broken_network}" ] || {{ echo "E: Unable to locate package" >&2; exit 100; }}
    printf '#!/bin/sh\\n' >"{bin}/mnexec"
    chmod +x "{bin}/mnexec" ;;
esac
"""


#: An apt-get that brings QEMU, and packages whose contents our dpkg-deb makes up.
APT_GET_FOR_VM = """#!/bin/sh
PATH=/usr/bin:/bin
echo "apt-get $*" >>"{calls}"
case "$*" in
*" install "*)
    printf '#!/bin/sh\\n' >"{bin}/qemu-system-x86_64"
    chmod +x "{bin}/qemu-system-x86_64" ;;
*" download "*)
    [ ! -e "{broken_network}" ] || {{ echo "E: Unable to fetch" >&2; exit 100; }}
    while [ "$1" != download ]; do shift; done
    shift
    for package; do : >"$package.deb"; done ;;
esac
"""
DPKG_DEB = """#!/bin/sh
PATH=/usr/bin:/bin
case "$2" in
*busybox*) mkdir -p "$3/bin" && : >"$3/bin/busybox" ;;
*) mkdir -p "$3/boot" "$3/usr/lib/modules/6.1/kernel/drivers/gpu" "$3/usr/lib/modules/6.1/kernel/drivers/net"
   : >"$3/boot/vmlinuz-6.1" ;;
esac
"""
APT_CACHE = """#!/bin/sh
case "$*" in
"depends linux-image-amd64") echo "  Depends: linux-image-6.1" ;;
"show linux-image-6.1") ;;
*) exit 100 ;;
esac
"""


class Machine:
    """A folder with the launcher in it, and a PATH where only some things are."""

    def __init__(self, folder: Path) -> None:
        self.root, self.bin = folder / "check out", folder / "bin"  # the blank is on purpose
        self.calls, self.broken_network = folder / "calls", folder / "broken-network"
        self.root.mkdir()
        self.bin.mkdir()
        shutil.copy(LAUNCHER, self.root)
        (self.root / "requirements.lock").write_text("trio==0.35.0\n")
        for name in ESSENTIAL:
            found = shutil.which(name, path="/usr/bin:/bin")
            assert found is not None, name
            (self.bin / name).symlink_to(found)
        self.add("python3", PYTHON)
        self.user(0)
        for name in ("mnexec", "ip", "tcpdump", "ping", "cc"):
            self.add(name, "#!/bin/sh\n")

    def add(self, name: str, script: str) -> None:
        path = self.bin / name
        places = {"calls": self.calls, "bin": self.bin, "python": path, "broken_network": self.broken_network}
        path.write_text(script.format(**places) if "{calls}" in script else script)
        path.chmod(0o755)

    def user(self, uid: int) -> None:
        self.add("id", f"#!/bin/sh\necho {uid}\n")

    def command(self, arguments: Sequence[str]) -> list[str]:
        return [str(self.root / "hconf"), *arguments]

    @property
    def environment(self) -> dict[str, str]:
        return {"PATH": str(self.bin)}

    def start(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(arguments),
            env=self.environment | environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
            cwd="/",
        )

    def calls_since(self) -> list[str]:
        """Return how Python and apt-get were called since this was last asked."""
        calls = self.calls.read_text().splitlines() if self.calls.exists() else []
        self.calls.unlink(missing_ok=True)
        return calls


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.fixture
def ready(machine: Machine) -> Machine:
    assert machine.start("doctor").returncode == 0
    machine.calls_since()
    return machine


def test_first_start_makes_the_environment_then_runs_the_command(machine: Machine) -> None:
    done = machine.start("run", "two words", EXIT_CODE="42")
    assert done.returncode == 42
    assert done.stdout == "ran: run two words\n"
    assert "making the virtual environment" in done.stderr
    installs = [call for call in machine.calls_since() if "-m pip" in call]
    assert len(installs) == 2
    assert "install --require-hashes --requirement" in installs[0]
    assert "install --no-deps --no-build-isolation --editable" in installs[1]


def test_later_starts_only_run_the_command(ready: Machine) -> None:
    done = ready.start("check", "x.toml")
    assert (done.stdout, done.stderr) == ("ran: check x.toml\n", "")
    assert ready.calls_since() == []


def test_through_a_symbolic_link(ready: Machine, tmp_path: Path) -> None:
    link = tmp_path / "bin" / "hconf"
    link.symlink_to(ready.root / "hconf")
    done = subprocess.run(
        ["hconf", "topo"], env=ready.environment, capture_output=True, text=True, check=False, cwd="/"
    )
    assert (done.stdout, done.stderr) == ("ran: topo\n", "")


def test_changed_lock_file_makes_the_environment_anew(ready: Machine) -> None:
    (ready.root / ".venv" / "of-the-old-one").touch()
    (ready.root / "requirements.lock").write_text("trio==0.36.0\n")
    assert "making the virtual environment" in ready.start().stderr
    assert not (ready.root / ".venv" / "of-the-old-one").exists()


def test_another_python_makes_the_environment_anew_once(ready: Machine) -> None:
    ready.add("other", PYTHON)
    other = str(ready.bin / "other")
    assert "making the virtual environment" in ready.start(HCONF_PYTHON=other).stderr
    assert ready.start(HCONF_PYTHON=other).stderr == ""
    assert ready.start().stderr == ""


def test_moved_checkout_makes_the_environment_anew(ready: Machine, tmp_path: Path) -> None:
    ready.root = ready.root.rename(tmp_path / "elsewhere")
    done = ready.start("doctor")
    assert "making the virtual environment" in done.stderr
    assert done.stdout == "ran: doctor\n"


def test_interrupted_installation_is_begun_anew(machine: Machine) -> None:
    machine.broken_network.touch()
    failed = machine.start("demo")
    assert failed.returncode == 3
    assert "no route to the index" in failed.stderr
    assert "the virtual environment could not be made (fix: " in failed.stderr
    assert failed.stdout == ""
    machine.broken_network.unlink()
    assert machine.start("demo").stdout == "ran: demo\n"


def test_environment_that_lost_its_command_is_made_anew(ready: Machine) -> None:
    (ready.root / ".venv" / "bin" / "hconf").unlink()
    assert ready.start("demo").stdout == "ran: demo\n"


def test_environment_that_somebody_else_made_is_left_alone(machine: Machine) -> None:
    theirs = machine.root / ".venv" / "pyvenv.cfg"
    theirs.parent.mkdir()
    theirs.touch()
    done = machine.start("demo")
    assert done.returncode == 3
    assert "was not made by this launcher" in done.stderr
    assert theirs.exists()


def test_second_launcher_waits_for_the_first_and_then_has_nothing_to_do(ready: Machine) -> None:
    stamp = ready.root / ".venv" / ".complete"
    content = stamp.read_text()
    stamp.unlink()
    with (ready.root / ".setup.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # we are the first launcher
        second = subprocess.Popen(
            ready.command(["demo"]), env=ready.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert second.stderr is not None
        assert "waiting for it" in second.stderr.readline()
        stamp.write_text(content)
    output, complaints = second.communicate(timeout=30)
    assert (output, complaints) == ("ran: demo\n", "")
    assert ready.calls_since() == []


def test_two_launchers_at_once_make_one_environment(machine: Machine) -> None:
    both = [
        subprocess.Popen(machine.command(["x"]), env=machine.environment, stderr=subprocess.DEVNULL) for _ in range(2)
    ]
    assert [one.wait(timeout=30) for one in both] == [0, 0]
    assert sum("--require-hashes" in call for call in machine.calls_since()) == 1


def test_missing_debian_packages_are_installed_by_root_once_and_without_recommended_ones(machine: Machine) -> None:
    (machine.bin / "mnexec").unlink()
    machine.add("apt-get", APT_GET)
    done = machine.start("demo")
    assert done.stdout == "ran: demo\n"
    assert "installing Debian packages: mininet" in done.stderr
    update, install = [call for call in machine.calls_since() if call.startswith("apt-get")]
    assert update.endswith(" update")
    assert install.endswith(" install --no-install-recommends mininet")
    assert machine.start("demo").stderr == ""


def test_packages_that_cannot_be_installed_end_with_exit_code_3(machine: Machine) -> None:
    (machine.bin / "mnexec").unlink()
    machine.add("apt-get", APT_GET)
    machine.broken_network.touch()
    done = machine.start("demo")
    assert done.returncode == 3
    assert "E: Unable to locate package" in done.stderr
    assert "apt-get could not install: mininet (fix: " in done.stderr


def test_a_plain_user_gets_no_packages_but_the_command_runs(machine: Machine) -> None:
    (machine.bin / "mnexec").unlink()
    machine.add("apt-get", APT_GET)
    machine.user(1000)
    assert machine.start("report").stdout == "ran: report\n"
    assert not [call for call in machine.calls_since() if call.startswith("apt-get")]


def test_python_that_does_not_start_is_passed_over(machine: Machine) -> None:
    (machine.bin / "python3").rename(machine.bin / "python3.12")
    machine.add("python3.12", PYTHON)
    machine.add("python3", "#!/bin/sh\necho 'pyenv: version not installed' >&2\nexit 127\n")
    assert machine.start("demo").stdout == "ran: demo\n"


def test_python_given_by_hand_that_does_not_start_is_an_error(machine: Machine) -> None:
    done = machine.start("demo", HCONF_PYTHON="/no/such/python")
    assert done.returncode == 3
    assert "HCONF_PYTHON=/no/such/python does not start" in done.stderr
    assert not (machine.root / ".venv").exists()


@pytest.fixture
def with_packages(ready: Machine) -> Machine:
    for name in ("sed", "head", "ls", "mv"):
        found = shutil.which(name, path="/usr/bin:/bin")
        assert found is not None
        (ready.bin / name).symlink_to(found)
    ready.add("apt-get", APT_GET_FOR_VM)
    ready.add("apt-cache", APT_CACHE)
    ready.add("dpkg-deb", DPKG_DEB)
    return ready


@pytest.mark.skipif(
    any(Path("/boot").glob("vmlinuz-*")), reason="this machine has a kernel in /boot, which is taken then"
)
@pytest.mark.parametrize("arguments", [("vm", "run", "x"), ("test", "--fast", "--vm")])
def test_a_virtual_machine_gets_a_kernel_that_is_not_installed(
    with_packages: Machine, arguments: tuple[str, ...]
) -> None:
    done = with_packages.start(*arguments)
    assert done.stdout == f"ran: {' '.join(arguments)}\n"
    calls = [call for call in with_packages.calls_since() if call.startswith("apt-get")]
    assert next(call for call in calls if " install " in call).endswith(
        " install --no-install-recommends qemu-system-x86"
    )
    assert calls[-1].endswith(" download busybox-static linux-image-6.1")
    guest = with_packages.root / ".vm"
    assert (guest / "boot" / "vmlinuz-6.1").exists()
    assert (guest / "bin" / "busybox").exists()
    assert [path.name for path in (guest / "lib" / "modules" / "6.1" / "kernel" / "drivers").iterdir()] == ["net"]
    assert not (with_packages.root / ".vm.part").exists()
    assert with_packages.start(*arguments).stderr == ""  # once


def test_other_commands_want_no_virtual_machine(with_packages: Machine) -> None:
    assert with_packages.start("run", "vm").stderr == ""
    assert with_packages.start("test").stderr == ""
    with_packages.user(1000)
    assert with_packages.start("vm", "run", "x").stdout == "ran: vm run x\n"  # which says what is missing
    assert not [call for call in with_packages.calls_since() if call.startswith("apt-get")]


def test_a_kernel_that_cannot_be_fetched_is_said_and_tried_again(with_packages: Machine) -> None:
    with_packages.broken_network.touch()
    done = with_packages.start("vm", "run", "x")
    assert (done.returncode, done.stdout) == (3, "")
    assert "apt-get could not download: busybox-static" in done.stderr
    with_packages.broken_network.unlink()
    assert with_packages.start("vm", "run", "x").stdout == "ran: vm run x\n"


def test_shell_syntax_is_posix() -> None:
    assert subprocess.run(["sh", "-n", LAUNCHER], check=False).returncode == 0
    assert LAUNCHER.read_text().startswith("#!/bin/sh\n")
    assert os.access(LAUNCHER, os.X_OK)

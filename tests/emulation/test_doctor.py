"""The doctor on this machine, and on one with things taken away from it in a mount namespace."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from testbed import doctor
from topologies.errors import CapabilityError

REQUIRE = "from testbed import doctor; doctor.require_for_run()"
COLLECT = "from testbed import doctor; print(doctor.as_json(doctor.collect()))"


def without_tun(program: str) -> subprocess.CompletedProcess[str]:
    """Run *program* where /dev/net is empty."""
    script = 'mount -t tmpfs none /dev/net && exec "$0" -c "$1"'
    command = ["unshare", "--mount", "sh", "-c", script, sys.executable, program]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def interfaces() -> set[Path]:
    return set(Path("/sys/class/net").iterdir())


def test_this_machine_can_run_experiments_and_the_probe_leaves_nothing() -> None:
    before = interfaces()
    doctor.require_for_run(capture=True)
    assert interfaces() == before


def test_no_tun_device_is_an_error_that_says_how_to_make_one() -> None:
    done = without_tun(REQUIRE)
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert "CapabilityError: TAP interfaces: " in last
    assert "modprobe tun" in last


def test_no_tun_device_leaves_the_other_findings_as_they_are() -> None:
    done = without_tun(COLLECT)
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert not rows["TAP interfaces"]["ok"]
    assert not rows["carrier of a TAP interface"]["ok"]
    assert rows["network namespaces"]["ok"]


def test_no_mnexec_is_an_error_that_names_the_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("ip", "mount", "tc", "unshare"):
        for folder in ("/usr/bin", "/usr/sbin", "/bin", "/sbin"):
            if Path(folder, name).exists():
                Path(tmp_path, name).symlink_to(Path(folder, name))
                break
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CapabilityError, match=r"^mnexec: is not installed.*mininet\)$"):
        doctor.require_for_run()

import os
import resource
import shutil
from pathlib import Path

import pytest

from testbed.emulation import preflight
from topologies.catalogue import build
from topologies.errors import CapabilityError

Files = list[tuple[int, int]]

SMALL = build("tiers", {})


@pytest.fixture(autouse=True)
def limits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Files:
    """A machine that lacks nothing, whose limit of open files is noted instead of set."""
    device = tmp_path / "tun"
    device.touch()
    monkeypatch.setattr(preflight, "TUN_DEVICE", device)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    noted: Files = [(1_024, 4_096)]
    monkeypatch.setattr(resource, "getrlimit", lambda _which: noted[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _which, limit: noted.append(limit))
    return noted


def test_a_machine_that_has_everything(limits: Files) -> None:
    preflight.check_machine(SMALL)
    assert len(limits) == 1


def test_the_soft_limit_is_raised_as_far_as_needed(limits: Files) -> None:
    preflight.check_machine(build("tiers", {"cores": 9, "csrs": 10, "ues_per_csr": 48}))
    assert limits[-1] == (3_256, 4_096)


def test_a_topology_that_is_too_large_is_refused_and_nothing_is_changed(
    limits: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("testbed.limits.available_bytes", lambda: 1 << 20)
    with pytest.raises(CapabilityError, match=r"^memory: .* 1 MiB available"):
        preflight.check_machine(SMALL)
    assert limits == [(1_024, 4_096)]


def test_not_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(CapabilityError, match=r"root.*\(fix: run it with sudo\)"):
        preflight.check_machine(SMALL)


def test_no_mnexec(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    with pytest.raises(CapabilityError, match=r"mnexec: is not installed.*\(fix: apt-get install"):
        preflight.check_machine(SMALL)


def test_no_tun(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(preflight, "TUN_DEVICE", tmp_path / "nowhere" / "tun")
    with pytest.raises(CapabilityError, match=r"cannot be opened \(No such file or directory\).*\(fix: modprobe tun"):
        preflight.check_machine(SMALL)

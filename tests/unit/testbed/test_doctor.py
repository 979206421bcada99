"""The doctor tries things for real, so the tests change what is there to be found, not the doctor."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from testbed import doctor
from testbed.doctor import Capability
from testbed.probes import NAMES
from topologies.catalogue import build
from topologies.errors import CapabilityError

#: Root becomes nobody; first it imports what is imported late, from folders that only root may read.
DROP_ROOT = """
import os
from testbed import doctor
doctor.collect()
if os.geteuid() == 0:
    os.setgroups([])
    os.setuid(65534)
"""


def without_root(program: str) -> subprocess.CompletedProcess[str]:
    """Run *program*, which may use `doctor`, as a user who is not root."""
    command = [sys.executable, "-c", DROP_ROOT + program]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def named(name: str, capabilities: list[Capability]) -> Capability:
    (found,) = [one for one in capabilities if one.name == name]
    return found


def test_without_root_everything_that_takes_root_says_so() -> None:
    found = [
        Capability(**fields) for fields in json.loads(without_root("print(doctor.as_json(doctor.collect()))").stdout)
    ]
    for name in ("root", "network namespaces", "TAP interfaces", "carrier of a TAP interface"):
        assert not named(name, found).ok
        assert named(name, found).mend == "run it as root: sudo ./hconf ..."
    assert "not root" in named("root", found).detail
    assert not doctor.can_run(found)


def test_without_root_a_run_is_refused_with_one_message_that_names_the_mend() -> None:
    message = without_root("doctor.require_for_run()").stderr.strip().splitlines()[-1]
    assert "CapabilityError: root: user " in message
    assert message.endswith("(fix: run it as root: sudo ./hconf ...)")


def test_program_that_is_not_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = doctor.collect()
    assert named("mnexec", found).detail == "is not installed, or not in PATH"
    assert "apt-get install --no-install-recommends mininet" in named("mnexec", found).mend
    assert "apt-get install --no-install-recommends tcpdump" in named("tcpdump", found).mend
    assert not doctor.can_run(found)


def test_program_that_is_there_but_does_not_work(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "mnexec"
    broken.write_text("#!/bin/sh\nexit 7\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    found = named("mnexec", doctor.collect())
    assert not found.ok
    assert "exit status 7" in found.detail


def test_what_is_good_needs_no_mending_and_what_is_not_does() -> None:
    for one in doctor.collect():
        assert one.detail
        assert bool(one.mend) is not one.ok


def test_only_what_a_run_needs_decides() -> None:
    good = Capability("mnexec", ok=True, detail="there", mend="", needed_for="run")
    no_netem = Capability("qdisc netem", ok=False, detail="unknown", mend="modprobe", needed_for="netem links")
    assert doctor.can_run([good, no_netem])


def test_table_shows_every_row_and_takes_brackets_literally() -> None:
    rows = [
        Capability("mnexec", ok=False, detail="[Errno 2]", mend="apt-get", needed_for="run"),
        Capability("tcpdump", ok=True, detail="there", mend="", needed_for="capture"),
    ]
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(doctor.as_table(rows))
    shown = console.export_text()
    assert "[Errno 2]" in shown
    assert "NO" in shown
    assert "yes" in shown
    assert "tcpdump" in shown


def test_limits_are_compared_with_what_the_experiment_needs() -> None:
    ring = build("tiers", {"cores": 2_000, "csrs": 1, "ues_per_csr": 1})
    memory = named("memory", doctor.collect(ring))
    assert memory.needed_for == "run"
    assert "this experiment: 2003 hosts" in memory.detail
    assert "the quickstart: 24 hosts" in named("memory", doctor.collect()).detail


def test_a_run_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_required", lambda _found: [])
    monkeypatch.setattr("testbed.limits.available_bytes", lambda: 1 << 20)
    with pytest.raises(CapabilityError, match="memory: "):
        doctor.require_for_run(topology=build("tiers", {}))
    doctor.require_for_run()


def test_every_impairment_is_said_of_every_back_end() -> None:
    found: dict[str, str | None] = dict.fromkeys(NAMES)
    found["netem reordering"], found["carrier"] = "unknown", "stays up"
    rows = doctor._impairments(found)
    assert len(rows) == 2 * len(doctor.IMPAIRMENTS)
    assert {row.name for row in rows if not row.ok} == {"netem: reordering", "wire: carrier loss"}
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(doctor.as_impairments_table(rows), doctor.as_table(rows))
    shown = console.export_text()
    assert "no: unknown" in shown
    assert shown.count("reordering") == 1  # in one of the tables only

"""Which runs are alive, as seen from another process."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from testbed.emulation import entering
from testbed.emulation.entering import choose_run, find_live_runs
from testbed.emulation.ownership import OWNER_FILE, Ownership, ProcessId
from topologies.errors import InputError


def claim(root: Path, run_id: str, hosts: list[str]) -> None:
    ownership = Ownership(run_id, root)
    ownership.claim()
    ownership.record({f"host {host}": os.getpid() for host in hosts} | {"zygote": os.getpid()})


def test_runs_that_are_alive_are_found_with_their_hosts(tmp_path: Path) -> None:
    claim(tmp_path, "one", ["ue1", "csr1"])
    claim(tmp_path, "without-hosts", [])
    claim(tmp_path, "dead", ["ue1"])
    record = json.loads((tmp_path / "dead" / OWNER_FILE).read_text())
    record["supervisor"][1] += 1  # the number is another process's now
    (tmp_path / "dead" / OWNER_FILE).write_text(json.dumps(record))
    (tmp_path / "foreign").mkdir()
    (run,) = find_live_runs(tmp_path)
    assert (run.run_id, sorted(run.hosts)) == ("one", ["csr1", "ue1"])
    assert run.hosts["ue1"].pid == os.getpid()
    assert find_live_runs(tmp_path / "nothing") == []


def test_a_host_whose_number_is_another_processs_by_now_is_not_entered() -> None:
    myself = ProcessId.of(os.getpid())
    assert myself is not None
    run = entering.LiveRun("one", {"ue1": ProcessId(myself.pid, myself.start_ticks + 1), "ue2": ProcessId(2**22, 1)})
    for host in run.hosts:
        with pytest.raises(InputError, match="has just ended"):
            entering.enter_host(run, host, where="here")
    assert entering.TRANSPORT_VARIABLE not in os.environ


def test_the_only_run_need_not_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def find() -> list[entering.LiveRun]:
        return find_live_runs(tmp_path)

    monkeypatch.setattr(entering, "find_live_runs", find)
    with pytest.raises(InputError, match="no run is alive"):
        choose_run(None, where="here")
    with pytest.raises(InputError, match="--hold"):
        choose_run("one", where="here")
    claim(tmp_path, "one", ["ue1"])
    assert choose_run(None, where="here").run_id == "one"
    claim(tmp_path, "two", ["ue1"])
    with pytest.raises(InputError, match=r"2 runs are alive .*one, two"):
        choose_run(None, where="here")
    assert choose_run("two", where="here").run_id == "two"
    with pytest.raises(InputError, match="did you mean `two`"):
        choose_run("twoo", where="here")

"""What is needed against what there is, on machines that are made up."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from pathlib import Path

import pytest

from testbed import limits
from testbed.limits import Limit, Needs, check_limits, raise_file_limit
from topologies.catalogue import build
from topologies.errors import CapabilityError
from topologies.model import Topology

Files = list[tuple[int, int]]


@pytest.fixture
def large() -> Topology:
    """500 hosts."""
    return build("tiers", {"cores": 9, "csrs": 10, "ues_per_csr": 48})


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> Files:
    """The limits of open files that were set; the last is the one in force."""
    noted: Files = [(1_024, 4_096)]
    monkeypatch.setattr(resource, "getrlimit", lambda _which: noted[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _which, limit: noted.append(limit))
    return noted


def refuse_to_set(_which: int, _limit: tuple[int, int]) -> None:
    raise ValueError("not allowed to raise maximum limit")


def named(name: str, needs: Needs) -> Limit:
    (found,) = [limit for limit in limits.limits(needs) if limit.name == name]
    return found


def test_needs_grow_with_hosts_links_and_processes(large: Topology) -> None:
    small, needs = Needs.of_quickstart(), Needs.of(large)
    assert needs.what == "500 hosts, 510 links"
    assert needs.open_files == 256 + 6 * 500
    assert needs.tasks == 128 + 500 + 2 * 510  # a proxy each on the ten CSRs
    assert needs.memory_bytes > 510 * 12_000_000
    assert needs.ptys == 500
    assert small.memory_bytes < 1 << 30  # as the README promises


def test_links_may_be_what_takes_most_files() -> None:
    meshed = build("tiers", {"cores": 200, "core_degree": 20, "csrs": 1, "ues_per_csr": 1})
    assert Needs.of(meshed).open_files == 64 + 2 * len(meshed.nodes) + 2 * len(meshed.links)


def test_the_soft_limit_is_raised_as_far_as_needed(large: Topology, files: Files) -> None:
    raise_file_limit(large)
    assert files[1:] == [(3_256, 4_096)]


def test_the_hard_limit_is_raised_where_that_is_allowed(large: Topology, files: Files) -> None:
    files[0] = (1_024, 2_048)
    assert named("open files", Needs.of(large)).ok
    assert files.pop() == (1_024, 2_048)  # asking leaves it as it was
    raise_file_limit(large)
    assert files[-1] == (3_256, 3_256)


def test_no_limit_is_enough(large: Topology, files: Files) -> None:
    files[0] = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    assert named("open files", Needs.of(large)).available is None
    raise_file_limit(large)
    assert len(files) == 1


def test_too_few_files_are_refused_with_the_number_that_would_do(
    large: Topology, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    files[0] = (1_024, 2_048)
    monkeypatch.setattr(resource, "setrlimit", refuse_to_set)
    with pytest.raises(
        CapabilityError,
        match=r"^open files: 3256 needed, 2048 available: topology tiers \(500 .*\(fix: ulimit -Hn 3256",
    ):
        check_limits(large)
    with pytest.raises(CapabilityError, match=r"^open files: 3256 needed.*\(fix: ulimit -Hn 3256"):
        raise_file_limit(large)
    assert len(files) == 1


def test_too_little_memory_is_refused(large: Topology, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "available_bytes", lambda: 1 << 30)
    with pytest.raises(CapabilityError, match=r"^memory: \d+ MiB needed, 1024 MiB available.*a smaller topology\)$"):
        check_limits(large)


def cgroup_files(root: Path, contents: dict[str, str]) -> Callable[[str], list[Path]]:
    """Return what finds one cgroup, with these files in it."""
    for name, content in contents.items():
        (root / name).write_text(content, encoding="ascii")
    return lambda _controller: [root]


@pytest.mark.parametrize(
    "contents",
    [
        {"memory.max": "500000000\n", "memory.current": "100000000\n"},
        {"memory.limit_in_bytes": "500000000\n", "memory.usage_in_bytes": "100000000\n"},
    ],
)
def test_a_container_has_what_its_limit_leaves(
    contents: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(limits, "_cgroups", cgroup_files(tmp_path, contents))
    assert limits.available_bytes() == 400_000_000


def test_a_container_without_a_limit_has_what_the_machine_has(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(limits, "_cgroups", cgroup_files(tmp_path, {"memory.max": "max\n", "pids.max": "max\n"}))
    assert limits.available_bytes() > 0
    assert named("processes", Needs.of_quickstart()).ok


def test_too_few_processes_are_refused(large: Topology, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(limits, "_cgroups", cgroup_files(tmp_path, {"pids.max": "1000\n", "pids.current": "100\n"}))
    monkeypatch.setattr(limits, "available_bytes", lambda: 1 << 40)
    with pytest.raises(CapabilityError, match=r"^processes: 1648 needed, 900 available.*--pids-limit 6592"):
        check_limits(large)


def test_root_is_not_held_to_a_limit_of_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_cgroups", lambda _controller: [])
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (10, 10))
    monkeypatch.setattr(resource, "setrlimit", lambda _which, _limit: None)
    monkeypatch.setattr(os, "geteuid", lambda: 1_000)
    assert named("processes", Needs.of_quickstart()).available == 10
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert named("processes", Needs.of_quickstart()).ok


def test_ptys_are_needed_by_who_types_not_by_a_run(large: Topology, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_number", lambda _path, otherwise: otherwise)
    monkeypatch.setattr(limits, "available_bytes", lambda: 1 << 40)
    assert not named("pseudo-terminals", Needs.of(large)).ok
    check_limits(large)

"""Whole runs through the command: network, conference, fault, records, CSV files, and nothing left behind.

What is asserted here does not depend on how fast the machine is.
"""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from experiments.columns import TABLES
from testbed.emulation.ownership import processes_marked
from testbed.plan import RUNTIME_ROOT

ROOT = Path(__file__).parents[2]
HCONF = (sys.executable, "-m", "experiments.cli")
PCAPNG_MAGIC = b"\x0a\x0d\x0d\x0a"

#: Three CSRs with a UE each over a ring of three core routers, two uplinks a CSR: ue1 and ue2 meet at core2.
SMALL = """
[experiment]
name = "small"
duration_s = {duration_s}
seed = 5

[topology]
name = "tiers"
cores = 3
csrs = 3
ues_per_csr = 1

[[workload]]
kind = "constant"
rate_per_s = 8.0
size_bytes = 100
"""

FAULTS = """
[[fault]]
kind = "link-down"
target = "core2-csr1"
at_s = 0.8
for_s = 0.8

[[fault]]
kind = "impair"
target = "core1-csr3"
at_s = 1.0
for_s = 0.5
delay_ms = 30.0

[capture]
links = ["csr1-ue1"]

[[expect]]
metric = "deliveries.lost"
equals = 0
"""


@pytest.fixture
def write_experiment(tmp_path: Path) -> Callable[..., Path]:
    def write(more: str = "", *, duration_s: float = 1.0) -> Path:
        path = tmp_path / "small.toml"
        path.write_text(SMALL.format(duration_s=duration_s) + more, encoding="utf-8")
        return path

    return write


def environment(**more: str) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT)} | more


def hconf(*arguments: str | Path, cwd: Path, **more: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*HCONF, *map(str, arguments)], cwd=cwd, env=environment(**more), capture_output=True, text=True, check=False
    )
    assert "Traceback" not in done.stderr + done.stdout
    return done


@contextmanager
def started(arguments: Sequence[str | Path], *, cwd: Path) -> Iterator[subprocess.Popen[str]]:
    """The command as a terminal starts it: in the foreground, Ctrl-C not ignored."""
    with subprocess.Popen(
        [*HCONF, *map(str, arguments)],
        cwd=cwd,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        restore_signals=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()  # nothing if it has ended


def read_until(process: subprocess.Popen[str], words: str) -> None:
    assert process.stdout is not None
    said: list[str] = []
    for line in process.stdout:
        said.append(line)
        if words in line:
            return
    pytest.fail(f"ended without saying {words!r}:\n{''.join(said)}")


def rows(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def manifest(folder: Path) -> dict[str, Any]:
    return msgspec.json.decode((folder / "manifest.json").read_bytes(), type=dict[str, Any])


def assert_gone(folder: Path) -> None:
    run_id = manifest(folder)["run_id"]
    assert processes_marked(run_id) == []
    assert not (RUNTIME_ROOT / run_id).exists()


def csv_contents(folder: Path) -> dict[str, bytes]:
    return {table.file: (folder / table.file).read_bytes() for table in TABLES}


def test_a_run_with_faults_from_end_to_end(tmp_path: Path, write_experiment: Callable[..., Path]) -> None:
    done = hconf("run", write_experiment(FAULTS, duration_s=2.5), cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    folder = (tmp_path / "runs" / "latest").resolve()
    assert_gone(folder)

    written = manifest(folder)
    assert written["verdict"] == "pass"
    assert written["seed"] == 5
    assert "verdict" in (folder / "report.txt").read_text(encoding="utf-8")
    assert set(written["phases"]) == {"hosts_s", "links_s", "nodes_s", "join_s", "up_s", "settle_s", "down_s"}

    updates = [row for row in rows(folder, "updates.csv") if float(row["published_s"]) >= 0]
    assert len(updates) == 60  # three UEs, 8 a second, 2.5 s
    assert {(row["expected_receivers"], row["delivered_receivers"]) for row in updates} == {("2", "2")}
    assert all(row["acked_s"] and row["ack_level"] for row in updates)

    deliveries = [row for row in rows(folder, "deliveries.csv") if float(row["published_s"]) >= 0]
    assert len(deliveries) == 120
    for row in deliveries:
        # A fault can only make it longer. The emulator counts from when a frame is read, which makes it a little early.
        assert float(row["latency_ms"]) > float(row["path_delay_ms"]) - 1.0
        assert row["was_joined"] == "true"
    assert {row["during_fault"] for row in deliveries} == {"true", "false"}

    down, impaired = rows(folder, "faults.csv")
    assert (down["fault_id"], down["kind"], down["target"]) == ("f1", "link-down", "core2-csr1")
    assert (impaired["fault_id"], impaired["kind"], impaired["target"]) == ("f2", "impair", "core1-csr3")
    for fault in (down, impaired):
        assert fault["verified"] == "true"
        assert 0.8 <= float(fault["intended_s"]) <= float(fault["applied_s"]) < float(fault["healed_s"])

    noticed = {row["node"]: row for row in rows(folder, "recovery.csv") if row["fault_id"] == "f1"}
    assert {"core2", "csr1"} <= set(noticed)
    for router in ("core2", "csr1"):
        assert float(down["applied_s"]) <= float(noticed[router]["detected_s"]) <= float(noticed[router]["recovered_s"])
    for name in ("ue1", "ue2"):  # their shortest path to each other is over the link that failed
        assert noticed[name]["updates_lost"] == "0"

    ends = {(row["link"], row["from"]) for row in rows(folder, "links.csv")}
    assert len(ends) == len(rows(folder, "links.csv")) == 2 * 13
    assert all(int(row["packets"]) > 0 for row in rows(folder, "links.csv"))
    assert {row["message"] for row in rows(folder, "messages.csv")} & {"sync-update", "push"}
    assert {row["exits"] for row in rows(folder, "nodes.csv")} == {"ok"}
    assert {row["malformed"] for row in rows(folder, "nodes.csv")} == {"0"}

    verdicts = {row["name"]: row["verdict"] for row in rows(folder, "checks.csv")}
    held = {name for name, verdict in verdicts.items() if verdict == "pass"}
    assert {"expect.deliveries.lost", "run.complete", "fidelity.faults", "fidelity.nodes"} <= held
    assert {name for name in verdicts if name.startswith("invariant.")} <= held
    assert (folder / "captures" / "csr1-ue1.pcapng").read_bytes()[:4] == PCAPNG_MAGIC

    first = csv_contents(folder)
    for name in first:
        (folder / name).unlink()
    assert hconf("report", folder, cwd=tmp_path).returncode == 0
    assert csv_contents(folder) == first


def test_an_expectation_that_fails_makes_it_exit_1_and_sudo_gets_the_folder(
    tmp_path: Path, write_experiment: Callable[..., Path]
) -> None:
    expect = '[[expect]]\nmetric = "deliveries.latency_ms.p50"\nat_most = 0.001\n'
    done = hconf("run", write_experiment(expect), "--out", "out", cwd=tmp_path, SUDO_UID="65534", SUDO_GID="65534")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "expect.deliveries.latency_ms.p50: fail" in done.stdout
    folder = tmp_path / "out"
    assert manifest(folder)["verdict"] == "fail"
    assert_gone(folder)
    assert {path.stat().st_uid for path in (folder, *folder.rglob("*"))} == {65534}
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("words", ["building the network", "joining", "running"])
def test_ctrl_c_removes_the_network_and_keeps_the_records(
    tmp_path: Path, write_experiment: Callable[..., Path], words: str
) -> None:
    with started(["run", write_experiment(duration_s=60.0), "--out", "out"], cwd=tmp_path) as process:
        read_until(process, words)
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate()
    assert process.returncode == 130, said
    assert "Traceback" not in said
    folder = tmp_path / "out"
    assert manifest(folder)["verdict"] == "interrupted"
    assert_gone(folder)
    if words == "running":
        assert rows(folder, "deliveries.csv") != []
        assert {row["exits"] for row in rows(folder, "nodes.csv")} == {"ok"}
        verdicts = {row["name"]: row["verdict"] for row in rows(folder, "checks.csv")}
        assert "fail" not in {verdict for name, verdict in verdicts.items() if name.startswith("invariant.")}


def test_a_run_that_is_held_can_be_entered_until_it_is_interrupted_and_is_judged_as_ever(
    tmp_path: Path, write_experiment: Callable[..., Path]
) -> None:
    with started(["run", write_experiment(), "--out", "out", "--hold"], cwd=tmp_path) as process:
        read_until(process, "kept up; Ctrl-C")
        read_until(process, "hconf exec ue1 -- PROGRAM")
        read_until(process, "kept up")
        with started(
            ["exec", "--run", "out", "ue1", "--", "sh", "-c", "echo $NDN_CLIENT_TRANSPORT"], cwd=tmp_path
        ) as program:
            said, _ = program.communicate()
        assert (program.returncode, said.endswith("/ue1/nfd.sock\n")) == (0, True)
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate()
    assert process.returncode == 0, said
    folder = tmp_path / "out"
    assert manifest(folder)["verdict"] == "pass"
    assert_gone(folder)
    assert {row["exits"] for row in rows(folder, "nodes.csv")} == {"ok"}


def test_a_node_that_breaks_down_fails_the_run_and_the_rest_goes_on(
    tmp_path: Path, write_experiment: Callable[..., Path]
) -> None:
    with started(["run", write_experiment(duration_s=1.5), "--out", "out"], cwd=tmp_path) as process:
        read_until(process, "running")
        owned = msgspec.json.decode((RUNTIME_ROOT / manifest(tmp_path / "out")["run_id"] / "owner.json").read_bytes())
        os.kill(owned["processes"]["node ue3.forwarder"][0], signal.SIGKILL)
        said, _ = process.communicate()
    assert process.returncode == 1, said
    assert "ue3.forwarder ended by itself with status -9" in said
    folder = tmp_path / "out"
    assert_gone(folder)
    nodes = {row["node"]: row["exits"] for row in rows(folder, "nodes.csv")}
    assert nodes.pop("ue3") == "forwarder: signal 9"
    assert set(nodes.values()) == {"ok"}
    verdicts = {row["name"]: row["verdict"] for row in rows(folder, "checks.csv")}
    assert (verdicts["fidelity.nodes"], verdicts["invariant.in-order"]) == ("fail", "pass")
    last_s = max(float(row["published_s"]) for row in rows(folder, "updates.csv"))
    assert {row["publisher"] for row in rows(folder, "updates.csv") if float(row["published_s"]) > last_s - 0.3} == {
        "ue1",
        "ue2",
    }


def test_what_a_killed_run_leaves_is_cleaned_and_can_be_analysed(
    tmp_path: Path, write_experiment: Callable[..., Path]
) -> None:
    with started(["run", write_experiment(duration_s=60.0), "--out", "out"], cwd=tmp_path) as process:
        read_until(process, "running")
        process.kill()
    folder = tmp_path / "out"
    run_id = manifest(folder)["run_id"]
    assert (RUNTIME_ROOT / run_id).exists()
    cleaned = hconf("clean", cwd=tmp_path)
    assert cleaned.returncode == 0
    assert f"run {run_id}: " in cleaned.stdout
    assert_gone(folder)
    assert manifest(folder)["verdict"] == "running"
    reported = hconf("report", "out", cwd=tmp_path)
    assert reported.returncode == 0
    assert "unfinished" in reported.stdout
    assert {row["verdict"] for row in rows(folder, "checks.csv") if row["name"] == "run.complete"} == {"inconclusive"}


def test_a_machine_without_mnexec_is_refused(tmp_path: Path, write_experiment: Callable[..., Path]) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("unshare", "tcpdump", "ip"):
        (programs / name).symlink_to(f"/usr/bin/{name}")
    done = hconf("run", write_experiment(), "--out", "out", cwd=tmp_path, PATH=str(programs))
    assert done.returncode == 3
    assert "mnexec" in done.stderr
    assert "(fix: " in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_machine_without_tun_is_refused(tmp_path: Path, write_experiment: Callable[..., Path]) -> None:
    command = [*HCONF, "run", str(write_experiment()), "--out", "out"]
    hidden = ["unshare", "--mount", "--propagation", "private", "sh", "-c", 'mount -t tmpfs none /dev/net && exec "$@"']
    done = subprocess.run(
        [*hidden, "sh", *command], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 3, done.stderr
    assert "/dev/net/tun" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("size_kib", [900, 1_600])
def test_a_disk_that_fills_up_is_said_and_the_network_is_removed(
    tmp_path: Path, write_experiment: Callable[..., Path], size_kib: int
) -> None:
    (small := tmp_path / "small-disk").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_kib}k", "none", small], check=True)
    try:
        done = hconf("run", write_experiment(duration_s=3.0), "--out", small / "out", cwd=tmp_path)
        assert done.returncode == 3, done.stdout + done.stderr
        assert f"{small / 'out'}: the disk is full; the network is gone, and the records are kept" in done.stderr
        assert "(fix: make room" in done.stderr
        assert list((small / "out").glob(".*.new")) == []
        assert_gone(small / "out")
    finally:
        subprocess.run(["umount", small], check=True)

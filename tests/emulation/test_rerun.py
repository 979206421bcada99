"""Chance goes by message: the same file and seed lose the same messages again, whatever the timing was."""

from pathlib import Path

from tests.emulation.rerun import seen_run

FILE = """
[experiment]
name = "rerun"
duration_s = 2
seed = 11

[topology]
name = "tiers"
cores = 3
csrs = 2
ues_per_csr = 1

[links.core]
delay_ms = 2
[links.uplink]
delay_ms = 1
jitter_ms = 2
loss_ratio = 0.1
[links.access]
loss_ratio = 0.1

[[workload]]
kind = "poisson"
rate_per_s = 20
size_bytes = 100

[capture]
links = ["core1-csr1", "core2-csr1", "core2-csr2", "csr1-ue1", "csr2-ue2"]
"""


def test_two_runs_lose_the_same_attempts_of_the_same_messages(tmp_path: Path) -> None:
    file = tmp_path / "rerun.toml"
    file.write_text(FILE)
    first, second = (seen_run(file, tmp_path / name) for name in ("first", "second"))
    for run in (first, second):
        assert len(run.lost & run.offered) > 0.9 * len(run.lost)  # the captures end a little before the links
    both = first.offered & second.offered
    assert len(both) > 0.5 * len(first.offered)  # the others are what timing makes: repetitions, heartbeats, pushes
    lost = first.lost & both
    assert lost == second.lost & both
    assert 0.05 * len(both) < len(lost) < 0.2 * len(both)

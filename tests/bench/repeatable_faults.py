"""The same file and seed, emulated twice: do message faults hit the same (name, attempt)?  `python -m tests.bench.repeatable_faults`

An observer, a delay of 1 us of every packet, lists what came by in each run. Which packets those are differs a little: heartbeats, what a link
repeats. What came by in both must have met the same fate in both. Takes root, and half a minute.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import msgspec

from experiments.progress import PlainProgress
from experiments.runner import run_experiment
from experiments.spec import parse_experiment
from testbed.faults.packets.rules import MessageHit

_EXPERIMENT = """
[experiment]
name = "repeatable"
duration_s = 8
seed = 11
[topology]
name = "tiers"
cores = 3
csrs = 2
ues_per_csr = 2
[[workload]]
kind = "poisson"
rate_per_s = 10.0
stop_s = 7.5
[[fault]]
kind = "delay"
at_s = 1
for_s = 6
target = "*"
message = "heartbeat,push,sync-update,update,notification"
delay_ms = 0.001
[[fault]]
kind = "drop"
at_s = 1
for_s = 6
target = "*"
message = "heartbeat,push,sync-update,update,notification"
ratio = 0.1
"""

Met = tuple[str, str, str, str, int]


def hits_of(folder: Path, fault_id: str, *, margin_s: float = 0.0) -> set[Met]:
    """Return what a fault hit, but for the first and last *margin_s*, in which the other may not be in force."""
    lines = (folder / "raw" / "wire-ledger.jsonl").read_bytes().splitlines()
    hits = [msgspec.json.decode(line, type=MessageHit) for line in lines if b'"message_hit"' in line]
    ours = [hit for hit in hits if hit.fault_id == fault_id]
    first_s, last_s = ours[0].t_s + margin_s, ours[-1].t_s - margin_s
    return {(hit.link, hit.sender, hit.message, hit.name, hit.attempt) for hit in ours if first_s <= hit.t_s <= last_s}


def main() -> int:
    with tempfile.TemporaryDirectory() as temporary:
        folders = [Path(temporary) / name for name in ("one", "two")]
        for folder in folders:
            run_experiment(
                parse_experiment(_EXPERIMENT, Path("repeatable.toml")), out=folder, progress=PlainProgress("run")
            )
        met = [hits_of(folder, "f1", margin_s=0.2) for folder in folders]
        dropped = [hits_of(folder, "f2") for folder in folders]
    common = met[0] & met[1]
    differ = (dropped[0] ^ dropped[1]) & common
    print(
        f"came by: {len(met[0])} and {len(met[1])}, {len(common)} in both; dropped of these: {len(dropped[0] & common)}"
    )
    print(f"required: the same fate in both runs; measured: {len(differ)} of {len(common)} differ {sorted(differ)[:3]}")
    return bool(differ) or not common


if __name__ == "__main__":
    sys.exit(main())

"""Whatever is done to runs at whatever moment, nothing of them stays, and nothing else is touched. Takes root, 6 s a cycle.

    python -m tests.bench.residue_cycles [--cycles 50] [--seed 1]

A cycle: `hconf run` of a random network with random faults in a process of its own; after a random time one of ENDINGS; then
`hconf clean`. Printed: how long processes of the run outlived the supervisor, and whatever is left afterwards: processes that
carry the run's ID, its folder below /run/hconf, interfaces, named namespaces, queueing disciplines, files in /run and in the
directory for temporary files. All along there are things that are not ours: a named namespace with a process in it, a bridge, a
folder below /run/hconf, and another network of hconf that is up. They are looked at after each cycle. Exit status 1 if
anything was left, was touched, or outlived its supervisor by more than 2 s.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from testbed.emulation.ownership import OWNER_FILE, ProcessId, kill, processes_marked
from testbed.plan import RUNTIME_ROOT
from tests.emulation.machine import look_at_machine

ROOT = Path(__file__).parents[2]
DEATH_LIMIT_S = 2.0  #: from the end of the supervisor to that of everything else
END_LIMIT_S = 30.0  #: for a run that was asked to end, or whose helper is gone
MOMENT_MAX_S = 7.0  #: the run takes some 6 s if it is let

#: What ends a run, and how often.
ENDINGS = {
    "kill -9 of the supervisor": 4,
    "kill -9 of the supervisor, holders frozen": 2,
    "kill -9 of the supervisor, zygote frozen": 1,
    "kill -9 of holders": 1,
    "kill -9 of zygote": 1,
    "kill -9 of link emulator": 1,
    "kill -9 of a node": 1,
    "kill -9 of a host": 1,
    "interrupt": 1,
    "terminate": 1,
    "none": 1,
}

FAULTS = (
    'kind = "link-down"\ntarget = "{link}"\nfor_s = 1.0',
    'kind = "impair"\ntarget = "{link}"\ndelay_ms = 40\nloss_ratio = 0.2\nfor_s = 1.0',
    'kind = "impair"\ntarget = "{link}"\nloss_ratio = 1.0',
    'kind = "crash"\ntarget = "csr1.proxy"\nfor_s = 0.5',
    'kind = "crash"\ntarget = "core2"\nfor_s = 0.5',
    'kind = "disk-loss"\ntarget = "csr1"\nfor_s = 0.5',
    'kind = "freeze"\ntarget = "csr1.forwarder"\nfor_s = 1.0',
)


@dataclass
class Tally:
    """What came of all cycles."""

    endings: Counter[str] = field(default_factory=Counter)
    outlived_s: list[float] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def draw_experiment(chance: random.Random) -> str:
    """Return an experiment of some seconds, as TOML."""
    cores, csrs, ues = chance.randint(3, 5), chance.randint(1, 3), chance.randint(1, 3)
    experiment = f'[experiment]\nname = "residue"\nduration_s = 3\nseed = {chance.randint(0, 999)}\n'
    topology = f'[topology]\nname = "tiers"\ncores = {cores}\ncsrs = {csrs}\nues_per_csr = {ues}\n'
    lines = [experiment, topology, '[[workload]]\nkind = "poisson"\nrate_per_s = 2.0\nsize_bytes = 120\n']
    for fault in chance.sample(FAULTS, chance.randint(0, 3)):
        spelt = fault.format(link=chance.choice(("core1-core2", "csr1-ue1", "core1-login")))
        lines.append(f"[[fault]]\nat_s = {chance.uniform(0.2, 2.0):.2f}\n{spelt}\n")
    return "".join(lines)


@contextlib.contextmanager
def foreign_things(scratch: Path) -> Iterator[dict[str, Any]]:
    """Make what is not ours, and give what tells whether it is still there."""
    name = f"fo-{uuid.uuid4().hex[:8]}"
    folder = RUNTIME_ROOT / name
    with contextlib.ExitStack() as made:
        folder.mkdir(parents=True)
        made.callback(folder.rmdir)
        (folder / "file").write_text("keep me")
        made.callback((folder / "file").unlink)
        for make, remove in (
            (["ip", "netns", "add", name], ["ip", "netns", "del", name]),
            (["ip", "link", "add", name, "type", "bridge"], ["ip", "link", "del", name]),
        ):
            subprocess.run(make, check=True)
            made.callback(subprocess.run, remove, check=True)
        sleeper = made.enter_context(subprocess.Popen(["ip", "netns", "exec", name, "sleep", "100000"]))
        made.callback(sleeper.kill)
        command = [sys.executable, "-m", "tests.emulation.supervise", f"live-{name}", str(scratch / "live")]
        live = made.enter_context(
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, start_new_session=True)
        )
        assert live.stdout is not None
        made.callback(live.communicate)  # which closes its standard input: then it goes
        if live.stdout.readline() != b"up\n":
            sys.exit("the network that is to live all along did not come up")
        yield {"name": name, "folder": folder, "processes": (sleeper, live)}


def look_at_foreign(foreign: dict[str, Any]) -> list[str]:
    """Return what has been touched that is not ours."""
    name, touched = foreign["name"], []
    if any(process.poll() is not None for process in foreign["processes"]):
        touched.append("a foreign process has ended")
    if (foreign["folder"] / "file").read_text() != "keep me":
        touched.append("a foreign file has changed")
    if name not in subprocess.check_output(["ip", "netns"], text=True):
        touched.append("a foreign namespace is gone")
    if subprocess.run(["ip", "link", "show", name], stdout=subprocess.DEVNULL, check=False).returncode:
        touched.append("a foreign bridge is gone")
    owner = json.loads((RUNTIME_ROOT / f"live-{name}" / OWNER_FILE).read_bytes())
    if not all(ProcessId(*who).is_alive() for who in owner["processes"].values()):
        touched.append("a process of another run has ended")
    return touched


def owned(run_id: str) -> dict[str, ProcessId]:
    """Return what the run has recorded so far."""
    try:
        record = json.loads((RUNTIME_ROOT / run_id / OWNER_FILE).read_bytes())
    except (OSError, ValueError):
        return {}
    return {name: ProcessId(*who) for name, who in record["processes"].items()}


def end_run(ending: str, run: subprocess.Popen[bytes], run_id: str, chance: random.Random) -> bool:
    """Do it; return whether the run's processes are now to end without any help."""
    processes = owned(run_id)

    def pick(prefix: str) -> list[ProcessId]:
        found = [who for name, who in sorted(processes.items()) if name.startswith(prefix)]
        return [chance.choice(found)] if found else []

    match ending.rsplit(" of ", maxsplit=1)[-1]:
        case "the supervisor":
            run.kill()
        case "the supervisor, holders frozen" | "the supervisor, zygote frozen":
            for who in pick("holders" if "holders" in ending else "zygote"):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(who.pid, signal.SIGSTOP)
            run.kill()
            return False  # whoever is to end the others cannot
        case "interrupt":
            run.send_signal(signal.SIGINT)
        case "terminate":
            run.send_signal(signal.SIGTERM)
        case "none":
            pass
        case what:
            for who in pick({"a node": "node ", "a host": "host "}.get(what, what)):
                kill(who)
    return True


def cycle(chance: random.Random, scratch: Path, tally: Tally) -> None:
    """One run, ended somehow, and cleaned up after."""
    before = look_at_machine()
    temporary, out = scratch / "tmp", scratch / "run"
    temporary.mkdir()
    experiment = scratch / "residue.toml"
    experiment.write_text(draw_experiment(chance), encoding="utf-8")
    ending = chance.choices(list(ENDINGS), list(ENDINGS.values()))[0]
    moment_s = chance.uniform(0.0, MOMENT_MAX_S)
    tally.endings[ending] += 1
    environment = {**os.environ, "TMPDIR": str(temporary)}
    hconf = [sys.executable, "-m", "experiments.cli"]
    with (scratch / "output").open("wb") as output:
        run = subprocess.Popen(
            [*hconf, "run", str(experiment), "--out", str(out)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=ROOT,
            env=environment,
            start_new_session=True,
        )
    with contextlib.suppress(subprocess.TimeoutExpired):
        run.wait(moment_s)
    try:
        run_id = json.loads((out / "manifest.json").read_bytes())["run_id"]
    except (OSError, ValueError):
        run_id = ""  # it has not come so far
    what = f"{ending} after {moment_s:.2f} s (run {run_id or 'not begun'})"
    ends_by_itself = end_run(ending, run, run_id, chance)
    try:
        run.wait(END_LIMIT_S)
    except subprocess.TimeoutExpired:
        tally.problems.append(f"{what}: hconf did not end within {END_LIMIT_S:g} s")
        run.kill()
        run.wait()
    ended_s = time.monotonic()
    if not run_id:
        with contextlib.suppress(OSError, ValueError):  # it went on for a moment
            run_id = json.loads((out / "manifest.json").read_bytes())["run_id"]
    while run_id and ends_by_itself and processes_marked(run_id) and time.monotonic() < ended_s + 2 * DEATH_LIMIT_S:
        time.sleep(0.01)
    if ends_by_itself and ending.startswith("kill"):
        tally.outlived_s.append(time.monotonic() - ended_s)
        if tally.outlived_s[-1] > DEATH_LIMIT_S:
            tally.problems.append(f"{what}: something outlived it by {tally.outlived_s[-1]:.2f} s")
    cleaned = subprocess.run([*hconf, "clean"], capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
    if cleaned.returncode:
        tally.problems.append(f"{what}: hconf clean ended with {cleaned.returncode}: {cleaned.stderr}")
    left = [f"process {who.pid}" for who in processes_marked(run_id)] if run_id else []
    left += [str(path) for path in temporary.iterdir()]
    if run_id and (RUNTIME_ROOT / run_id).exists():
        left.append(str(RUNTIME_ROOT / run_id))
    if (after := look_at_machine()) != before:
        left.append(f"{before} became {after}")
    tally.problems += [f"{what}: left {one}" for one in left]
    subprocess.run(["rm", "-rf", str(temporary), str(out)], check=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--cycles", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    chance, tally = random.Random(arguments.seed), Tally()
    with tempfile.TemporaryDirectory() as directory, foreign_things(Path(directory)) as foreign:
        for number in range(arguments.cycles):
            known = len(tally.problems)
            cycle(chance, Path(directory), tally)
            tally.problems += [f"cycle {number + 1}: {touched}" for touched in look_at_foreign(foreign)]
            for problem in tally.problems[known:]:
                print(f"  {problem}")
    for ending, count in sorted(tally.endings.items()):
        print(f"  {count:3} x {ending}")
    if tally.outlived_s:
        print(
            f"processes outlived the supervisor by p50 {statistics.median(tally.outlived_s):.2f} s, "
            f"at most {max(tally.outlived_s):.2f} s; required at most {DEATH_LIMIT_S:g} s"
        )
    print(f"{arguments.cycles} cycles, seed {arguments.seed}: {len(tally.problems) or 'nothing'} left or touched")
    return int(bool(tally.problems))


if __name__ == "__main__":
    sys.exit(main())

"""`hconf test`: every check and test that a change must pass, in one command.

First the tests that need no root, on all cores; then, as root, the emulation tests, and beside them the linters, random
schedules, as many as fit in their time, and the simulated tests. What the emulation tests measure depends on what else the
machine does, so those get only what is left of it (SCHED_IDLE, sched(7)); there is much, for emulation is mostly waiting.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal
from xml.etree import ElementTree as ET

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from experiments import compiler
from experiments.guest_run import guest_environment, note
from testbed.vm.machine import Command, choose_machine, run_in_guest
from topologies.errors import HconfError, InputError

ROOT: Final = Path(__file__).resolve().parent.parent
PACKAGES: Final = ("experiments", "proxy", "testbed", "topologies")
EMULATION: Final = "tests/emulation"
SIMULATED: Final = "tests/simulated"
FAST: Final = "--fast"
VM: Final = "--vm"
#: What takes a kernel that has netem; where this one has, they are among the others, too.
VM_TESTS: Final = "tests/emulation/test_vm.py"  #: of the machine itself, from outside
NETEM_TESTS: Final = ("tests/emulation/test_netem_links.py",)
#: A place in the guest that is not the host's.
_RESULTS_IN_GUEST: Final = Path("/run/hconf-test-results.xml")
SCHEDULES: Final = "random schedules"
#: Other ones each time, as many as fit.
SCHEDULES_LIMIT_S: Final = 90
#: Of one test that gets only what others leave of the machine.
IDLE_TIMEOUT_S: Final = 300

PYTEST_NOTHING_SELECTED: Final = 5  # pytest's exit code
INTERRUPTED: Final = 130

Verdict = Literal["pass", "FAIL", "left out"]


@dataclass(frozen=True, slots=True)
class Counts:
    """How many tests ended how; an error in a fixture counts as a failure."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.passed + other.passed, self.failed + other.failed, self.skipped + other.skipped)

    def __str__(self) -> str:
        """Return the line that continuous integration looks for."""
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one step."""

    step: str
    verdict: Verdict
    seconds: float = 0.0
    note: str = ""
    counts: Counts = Counts()


def main(argv: Sequence[str] = ()) -> int:
    """Run everything and return the exit code: 0 only if all of it passed.

    ``--fast`` leaves out what takes root, and the random schedules; every other argument goes to pytest. If one of them is a path, only the tests
    there run, and the linters. ``--vm`` runs the tests that take a kernel with netem, or those named by path, in a virtual
    machine that has one, and nothing else; it takes no root.

    >>> main(["--fast", "no/such/test.py"])
    hconf test: no/such/test.py: there is no such file (fix: name a path below the project's folder)
    2
    """
    try:
        pytest_arguments = [argument for argument in argv if argument not in (FAST, VM)]
        paths = _check(pytest_arguments)
        if VM in argv:
            return _run_vm(pytest_arguments, only_paths=paths)
        return _run(pytest_arguments, only_paths=paths, fast=FAST in argv)
    except HconfError as error:
        print(f"hconf test: {error}")  # noqa: T201
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED


def _check(pytest_arguments: Sequence[str]) -> bool:
    """Return whether tests are named by path. Raises: InputError if there are no tests, or not those."""
    if not (ROOT / "tests").is_dir():
        raise InputError(
            where=str(ROOT),
            problem="the tests are not part of the installed package",
            remedy="run ./hconf test in a clone",
        )
    missing = [
        tool for tool in ("ruff", "mypy", "flake8-async", "lint-imports", "pytest") if not _script(tool).exists()
    ]
    if missing:
        raise InputError(
            where=sys.prefix,
            problem=f"not installed: {', '.join(missing)}",
            remedy="./hconf test, or: pip install --editable '.[dev]'",
        )
    arguments = [argument.partition("::")[0] for argument in pytest_arguments if not argument.startswith("-")]
    paths = [argument for argument in arguments if "/" in argument or argument.endswith(".py")]
    for path in paths:
        if not (ROOT / path).exists():
            raise InputError(
                where=path, problem="there is no such file", remedy="name a path below the project's folder"
            )
    return bool(paths)


def _script(name: str) -> Path:
    return Path(sysconfig.get_path("scripts")) / name


def _run(pytest_arguments: list[str], *, only_paths: bool, fast: bool) -> int:
    console = Console()
    outcomes: list[Outcome] = [_compile()]
    as_root = os.geteuid() == 0
    with ThreadPoolExecutor(max_workers=1) as beside:
        on_all_cores = ["--numprocesses", str(len(os.sched_getaffinity(0))), "--dist", "worksteal", *pytest_arguments]
        with_emulation = as_root and not fast
        if only_paths:
            outcomes.append(_pytest("tests", pytest_arguments))
        else:
            apart = [f"--ignore={folder}" for folder in (EMULATION, *([SIMULATED] if with_emulation else []))]
            outcomes.append(_pytest("tests without root", [*apart, *on_all_cores]))
        linters = beside.submit(lambda: list(_lint()))
        if fast and not only_paths:
            outcomes += [Outcome(step, "left out", note=FAST) for step in (SCHEDULES, EMULATION)]
        elif not only_paths:
            later = [beside.submit(_random_schedules)]
            if with_emulation:
                patient = [SIMULATED, f"--timeout={IDLE_TIMEOUT_S}", *on_all_cores]
                later.append(beside.submit(_pytest, SIMULATED, patient, is_beside=True))
                outcomes.append(_pytest(EMULATION, [EMULATION, *pytest_arguments]))
            else:
                outcomes.append(Outcome(EMULATION, "left out", note="takes root"))
            outcomes += [each.result() for each in later]
        outcomes = linters.result() + outcomes
    return _report(outcomes, console)


def _compile() -> Outcome:
    """The tests try what runs use; where it cannot be compiled, that is what is interpreted."""
    if problem := compiler.why_not():
        return Outcome("compile", "left out", note=problem)
    return _outside("compile", [str(_script("hconf")), "compile"])


def _random_schedules() -> Outcome:
    seed = time.time_ns() // 1_000_000 % 2**40  # not those of the last time
    command = [
        *(sys.executable, "-m", "experiments.cli", "fuzz-schedules", "--runs", "100000"),
        *("--seed", str(seed), "--time-limit-s", str(SCHEDULES_LIMIT_S)),
    ]
    with tempfile.TemporaryDirectory(prefix="hconf-test-") as directory:
        return _linter(SCHEDULES, [*command, "--out", directory], says=r"\d+ schedules from \d+ on")


def _lint() -> Iterator[Outcome]:
    yield _linter("ruff check", [str(_script("ruff")), "check", "."])
    yield _linter("ruff format", [str(_script("ruff")), "format", "--check", "."])
    yield _linter("lint-imports", [str(_script("lint-imports"))])
    yield _linter("mypy --strict", [str(_script("mypy")), "--strict"])
    if sources := _async_sources():
        yield _linter("flake8-async", [str(_script("flake8-async")), *sources])


def _async_sources() -> list[str]:
    """Return the files that flake8-async has anything to say about; it takes half a second for each."""
    found = (path for top in (*PACKAGES, "tests") for path in sorted((ROOT / top).rglob("*.py")))
    return [str(path) for path in found if any(word in path.read_bytes() for word in (b"async ", b"trio"))]


def _linter(step: str, command: list[str], *, says: str = "(?!)") -> Outcome:
    """Run a program beside the tests, with what these leave of the machine."""
    return _outside(step, [*_idle(), *command], says=says)


def _idle() -> list[str]:
    chrt = shutil.which("chrt")
    return [] if chrt is None else [chrt, "--idle", "0"]


def _outside(step: str, command: list[str], *, says: str = "(?!)") -> Outcome:
    """Run a program that ends with 0 where all is well. Its note is then what matches *says*, else all that it says."""
    started_s = time.monotonic()
    done = subprocess.run(
        command,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    failed, said = done.returncode != 0, re.search(says, done.stdout)
    note = done.stdout if failed else said.group() if said else ""
    return Outcome(step, "FAIL" if failed else "pass", time.monotonic() - started_s, note)


def _pytest(step: str, arguments: list[str], *, is_beside: bool = False) -> Outcome:
    """Run tests; those that run beside others say something only if they fail."""
    started_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="hconf-test-") as directory:
        results, said = Path(directory) / "results.xml", Path(directory) / "output"
        command = [*(_idle() if is_beside else ()), str(_script("pytest")), "-q", f"--junit-xml={results}", *arguments]
        with said.open("wb") as output:
            where = output if is_beside else None
            done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=where, stderr=where, check=False)
        counts = read_counts(results)
        passed = done.returncode in {0, PYTEST_NOTHING_SELECTED}
        if not passed:
            print(said.read_text("utf-8", "replace"), end="", flush=True)  # noqa: T201
    return Outcome(step, "pass" if passed else "FAIL", time.monotonic() - started_s, str(counts), counts)


def _run_vm(arguments: Sequence[str], *, only_paths: bool) -> int:
    if only_paths:
        return _report([_in_guest(arguments)], Console())
    inside = _in_guest([*NETEM_TESTS, *arguments])
    os.environ["HCONF_TEST_VM"] = "1"
    return _report([inside, _pytest("virtual machines", [VM_TESTS, *arguments])], Console())


def _in_guest(arguments: Sequence[str]) -> Outcome:
    """Run pytest in a virtual machine. Raises: CapabilityError if there can be none here."""
    started_s = time.monotonic()
    machine = choose_machine(cpus=None, memory_mb=None)
    with tempfile.TemporaryDirectory(prefix="hconf-test-") as directory:
        results = Path(directory) / "results.xml"
        command = Command(
            [
                *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"),
                *(f"--junit-xml={_RESULTS_IN_GUEST}", *arguments),
            ],
            ROOT,
            guest_environment(os.environ),
            hand_out={_RESULTS_IN_GUEST: results},
        )
        code = run_in_guest(machine, command, note=note)
        counts = read_counts(results)
    passed = code == 0 and counts.skipped == 0  # a test that the guest has to skip is one that nobody runs
    return Outcome(
        "in a virtual machine", "pass" if passed else "FAIL", time.monotonic() - started_s, str(counts), counts
    )


def read_counts(results: Path) -> Counts:
    """Read the counts from a JUnit XML file that pytest wrote; all are 0 if it wrote none."""
    if not results.exists():
        return Counts()
    total = Counts()
    for suite in ET.parse(results).getroot().iter("testsuite"):  # noqa: S314  # pytest wrote it a moment ago
        tests, failures, errors, skipped = (
            int(suite.get(key, "0")) for key in ("tests", "failures", "errors", "skipped")
        )
        total += Counts(tests - failures - errors - skipped, failures + errors, skipped)
    return total


def _report(outcomes: Sequence[Outcome], console: Console) -> int:
    for one in outcomes:
        if one.verdict == "FAIL" and one.counts == Counts():
            console.rule(f"[bold red]{one.step}")
            console.print(escape(one.note), highlight=False, soft_wrap=True)
    table = Table(title="hconf test", title_justify="left")
    for column in ("step", "result", "seconds", ""):
        table.add_column(column, justify="right" if column == "seconds" else "left")
    style = {"pass": "[green]", "FAIL": "[bold red]", "left out": "[yellow]"}
    for one in outcomes:
        note = str(one.counts) if one.counts != Counts() else one.note if one.verdict != "FAIL" else ""
        table.add_row(one.step, style[one.verdict] + one.verdict, f"{one.seconds:.1f}", note)
    console.print(table)
    counts = sum((one.counts for one in outcomes), Counts())
    print(counts, flush=True)  # noqa: T201
    good = all(one.verdict != "FAIL" for one in outcomes) and counts.passed > 0
    return 0 if good else 1

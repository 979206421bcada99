"""``hconf vm``: what ``hconf run`` does, in a virtual machine with a distribution's stock kernel.

The experiment is checked here, before anything boots; the guest runs the same Python on the same files, and the run folder
comes out as it is when the guest has made it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import typer

from experiments.run_folder import RUNS_DIR, RunFolder, check_can_create, default_path, point_latest
from experiments.spec import Experiment
from testbed.vm.kernel import ROOT
from testbed.vm.machine import Command, Machine, run_in_guest
from topologies.errors import InputError

#: Folders of the host that the guest has its own of.
OWN_FOLDERS: Final = (Path("/dev"), Path("/proc"), Path("/run"), Path("/sys"))


def run_experiment_in_guest(
    experiment: Experiment, machine: Machine, *, out: Path | None, options: Sequence[str]
) -> int:
    """Run *experiment*, which was checked, in a guest and bring its run folder out; return the exit code of the run.

    *options* are those of ``hconf run`` besides ``--out``. Raises: InputError, CapabilityError.
    """
    path = (out or default_path(experiment.settings.name, datetime.now(UTC))).absolute()
    check_can_create(path, given=out is not None)
    for shown, what in ((experiment.path, "the experiment file"), (path, "the run folder")):
        check_visible(shown, what=what)
    command = Command(
        guest_command("run", str(experiment.path.absolute()), "--out", str(path), *options),
        Path.cwd(),
        guest_environment(os.environ),
        hand_out={path: path},
    )
    code = run_in_guest(machine, command, note=note)
    if path.is_dir():
        RunFolder(path).hand_over()
        if out is None:
            point_latest(path.name)
        note(f"the run folder is {_spelt(path)}")
    return code


def run_program_in_guest(program: Sequence[str], machine: Machine, *, bring_out: Sequence[Path]) -> int:
    """Run any program in a guest; return its exit code. Raises: InputError, CapabilityError."""
    if not program:
        raise InputError(
            where="hconf vm exec", problem="no program given", remedy="for instance: hconf vm exec -- uname -a"
        )
    check_visible(Path.cwd(), what="the working directory")
    hand_out = {}
    for path in bring_out:
        check_can_create(path, given=True)
        check_visible(path, what="what is to be brought out")
        hand_out[path.absolute()] = path.absolute()
    command = Command(program, Path.cwd(), guest_environment(os.environ), hand_out=hand_out)
    return run_in_guest(machine, command, note=note)


def guest_command(*arguments: str) -> list[str]:
    """Return the command line of `hconf` in the guest: this very one."""
    return [sys.executable, "-P", "-m", "experiments.cli", *arguments]


def guest_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a command in the guest: ours, with the same modules."""
    path = os.pathsep.join(filter(None, (str(ROOT), environment.get("PYTHONPATH"))))
    return {**environment, "PYTHONPATH": path}


def check_visible(path: Path, *, what: str) -> None:
    """Refuse a place that the guest has its own of. Raises: InputError."""
    absolute = Path(os.path.abspath(path))  # noqa: PTH100  as it is written: the guest follows links for itself
    for folder in OWN_FOLDERS:
        if absolute.is_relative_to(folder) or absolute.resolve().is_relative_to(folder):
            raise InputError(
                where=str(path),
                problem=f"{what} is below {folder}, of which the guest has its own",
                remedy="choose a place on a disk",
            )


def note(text: str) -> None:
    """Say something about the machine itself: not on stdout, which is the command's."""
    typer.echo(f"hconf: {text}", err=True)


def _spelt(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd() / RUNS_DIR) else path

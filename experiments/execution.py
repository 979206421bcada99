"""`hconf exec`: this process becomes a program in a host of a run that is alive."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

from experiments.run_folder import RunFolder
from testbed.emulation.entering import choose_run, enter_host
from topologies.errors import InputError

WHERE: Final = "exec"

#: As shells and env(1) have them.
EXIT_CANNOT_RUN: Final = 126
EXIT_NOT_FOUND: Final = 127


def execute_in_host(host: str, program: list[str], *, run: str | None) -> None:
    """Run *program* in *host*: input, output, signals and exit status are the program's own. Never returns.

    Args:
        host: a node of the run's topology.
        program: with its arguments.
        run: run ID or run folder; None: the only run that is alive.

    Raises: InputError, CapabilityError; SystemExit where there is no such program.
    """
    if not program:
        raise InputError(
            where=WHERE, problem="no program is given", remedy=f"write it behind --: hconf exec {host} -- PROGRAM"
        )
    enter_host(choose_run(_run_id(run), where=WHERE), host, where=WHERE)
    sys.stdout.flush()
    try:
        os.execvp(program[0], program)  # noqa: S606  no shell: the arguments are the program's, as they are
    except FileNotFoundError:
        sys.stderr.write(f"hconf: exec: {program[0]}: no such program in {host} (fix: give its path)\n")
        raise SystemExit(EXIT_NOT_FOUND) from None
    except OSError as error:
        sys.stderr.write(f"hconf: exec: {program[0]}: {error.strerror} (fix: give the path of a program)\n")
        raise SystemExit(EXIT_CANNOT_RUN) from None


def _run_id(run: str | None) -> str | None:
    """Return the run ID that the user means: a folder stands for the run that writes it."""
    if run is None or not Path(run).is_dir():
        return run
    return str(RunFolder.open(Path(run)).read_manifest()["run_id"])

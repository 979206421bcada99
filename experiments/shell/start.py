"""What `hconf shell` is started with: an experiment file, or nothing but the name of a topology."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from experiments.runner import Outcome, run_experiment
from experiments.shell.fault_line import NO_END_S
from experiments.shell.progress import ShellProgress
from experiments.spec import Experiment, load_experiment, parse_experiment
from experiments.toml_text import to_toml
from topologies.catalogue import file_suffix, list_names
from topologies.errors import InputError


def choose_experiment(subject: str, overrides: Sequence[str] = ()) -> Experiment:
    """Return the experiment of a file, or one without workload or end for a topology.

    Args:
        subject: path of the file, or the topology's name, or a file that a topology is read from.
        overrides: as of ``--set``.

    Raises: InputError.
    """
    path = Path(subject)
    if file_suffix(subject) is not None:
        return parse_experiment(_bare(path.name), path, overrides)
    if subject not in list_names():
        if not path.exists() and not subject.endswith(".toml"):
            remedy = "name an experiment file, such as experiments/quickstart.toml, or one of `hconf topo list`"
            try:
                parse_experiment(_bare(subject), path)
            except InputError as error:
                remedy = f"{error.remedy}; or name an experiment file"
            raise InputError(where=subject, problem="is neither a file nor a topology", remedy=remedy)
        return load_experiment(path, overrides)
    return parse_experiment(_bare(subject), path, overrides)


def _bare(topology: str) -> str:
    """Return an experiment of the topology alone, with its defaults, that lasts until somebody ends it."""
    name = re.sub(r"[^A-Za-z0-9._-]", "-", topology)[:50]
    return to_toml({"experiment": {"name": f"shell-{name}", "duration_s": NO_END_S}, "topology": {"name": topology}})


def run_shell(experiment: Experiment, *, out: Path | None) -> Outcome:
    """Run *experiment* with a prompt over it, until the user leaves. Raises: as `run_experiment`."""
    from experiments.shell.session import ShellConsole  # noqa: PLC0415  loads mininet

    progress = ShellProgress(experiment.settings.name)
    return run_experiment(experiment, out=out, progress=progress, console=ShellConsole(progress), page=True)

"""Emulated, simulated, or both: what each of them cannot do is refused before anything is started."""

from __future__ import annotations

import dataclasses
from typing import Literal

from experiments.spec import Experiment, Impair
from topologies.errors import InputError

RunMode = Literal["emulated", "simulated"]


def check_mode(experiment: Experiment, mode: RunMode, *, hold: bool = False) -> None:
    """Refuse what *mode* cannot do, before anything is started. Raises: InputError."""
    where = str(experiment.path)
    if mode == "simulated":
        if hold:
            raise InputError(
                where="--hold",
                problem="a simulated network is not there for programs to run in",
                remedy="leave it out, or run the experiment emulated",
            )
        if experiment.captures:
            raise InputError(
                where=f"{where}: [capture]",
                problem="a simulated network has no frames to capture",
                remedy="leave it out, or run the experiment emulated",
            )
        for number, fault in enumerate(experiment.faults, start=1):
            if isinstance(fault, Impair) and fault.match is not None:
                raise InputError(
                    where=f"{where}: [[fault]] {number}: match",
                    problem="a simulated network has no frames with addresses and ports to choose by",
                    remedy="use a message fault (drop, delay, duplicate, corrupt), or run the experiment emulated",
                )
        return
    wanted = [f"clocks.skew_ppm of {node}" for node, ppm in experiment.clock_skew_ppm.items() if ppm]
    if wanted:
        raise InputError(
            where=where,
            problem=f"an emulated network cannot do {wanted[0]}",
            remedy="leave it out, or run with --mode simulated",
        )


def check_twin(experiment: Experiment, *, hold: bool) -> None:
    """Refuse what an emulated run with a simulated twin cannot do, besides what either mode cannot. Raises: InputError."""
    if hold:
        raise InputError(
            where="--hold",
            problem="what programs do in a network that is kept up is not in its simulated twin",
            remedy="leave it out, or run the experiment with --mode emulated",
        )
    check_mode(as_twin(experiment), "simulated")


def as_twin(experiment: Experiment) -> Experiment:
    """Return the experiment as a twin runs it: without captures, since it has no frames."""
    return dataclasses.replace(experiment, captures=())

"""The commands below `hconf vm`."""

# ruff: noqa: PLC0415  # imports stand where they are needed, as in cli.py

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from testbed.vm.machine import Machine

app = typer.Typer(
    help="A virtual machine with a distribution's stock kernel (QEMU), on this machine's own files.",
    no_args_is_help=True,
)


class Accelerator(StrEnum):
    """What runs the guest's instructions."""

    AUTO = "auto"
    KVM = "kvm"
    TCG = "tcg"


Cpus = Annotated[int | None, typer.Option("--cpus", metavar="N", help="Processors of the guest; without it: all.")]
Memory = Annotated[
    int | None, typer.Option("--memory-mb", metavar="MB", help="Memory of the guest, which holds all that it writes.")
]
Accel = Annotated[
    Accelerator,
    typer.Option(
        "--accelerator", help="KVM, or emulation (tcg), some 10 to 20 times slower; auto: KVM where it works."
    ),
]


@app.command()
def run(
    experiment: Annotated[Path, typer.Argument(metavar="EXPERIMENT.toml", help="The experiment file.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Run folder to make, instead of runs/<experiment>-<UTC time>."),
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Replace experiment.seed.")] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Replace a key of the file, such as conference.mode=push."),
    ] = None,
    cpus: Cpus = None,
    memory_mb: Memory = None,
    accelerator: Accel = Accelerator.AUTO,
) -> None:
    """Run one experiment in the guest and bring its run folder out. Takes no root.

    The kernel is the newest stock one in /boot, or the one that ./hconf fetches, or HCONF_VM_KERNEL.
    """
    from experiments.guest_run import run_experiment_in_guest
    from experiments.spec import load_experiment

    options = [f"--set={override}" for override in overrides or []]
    if seed is not None:
        options.append(f"--seed={seed}")
    seeds = [] if seed is None else [f"experiment.seed={seed}"]
    loaded = load_experiment(experiment, [*(overrides or []), *seeds])
    machine = _machine(cpus, memory_mb, accelerator)
    raise typer.Exit(run_experiment_in_guest(loaded, machine, out=out, options=options))


@app.command("exec", context_settings={"allow_interspersed_args": False})
def execute(
    program: Annotated[
        list[str] | None, typer.Argument(metavar="-- PROGRAM [ARGUMENT ...]", help="What to run in the guest.")
    ] = None,
    bring_out: Annotated[
        list[Path] | None,
        typer.Option("--bring-out", metavar="PATH", help="What the program will have made there; may be repeated."),
    ] = None,
    cpus: Cpus = None,
    memory_mb: Memory = None,
    accelerator: Accel = Accelerator.AUTO,
) -> None:
    """Run any program in the guest, as root there; what it writes is gone afterwards. Takes no root here."""
    from experiments.guest_run import run_program_in_guest

    program = program or []
    program = program[1:] if program[:1] == ["--"] else program
    machine = _machine(cpus, memory_mb, accelerator)
    raise typer.Exit(run_program_in_guest(program, machine, bring_out=bring_out or []))


def _machine(cpus: int | None, memory_mb: int | None, accelerator: Accelerator) -> Machine:
    from testbed.vm.machine import choose_machine

    chosen: dict[Accelerator, Literal["kvm", "tcg"]] = {Accelerator.KVM: "kvm", Accelerator.TCG: "tcg"}
    return choose_machine(cpus=cpus, memory_mb=memory_mb, accelerator=chosen.get(accelerator))

"""The command `hconf`. Each subcommand loads what it needs when it is called, so that `hconf --help` is there at once."""

# ruff: noqa: PLC0415  # imports stand where they are needed: loading all of them takes more than a second

from __future__ import annotations

import os
import sys
import tomllib
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal, NoReturn

import typer

from experiments import cli_vm
from topologies.errors import CapabilityError, HconfError, InputError

if TYPE_CHECKING:
    from experiments.run_mode import RunMode
    from experiments.runner import Outcome
    from experiments.spec import Experiment

QUICKSTART: Final = Path(__file__).resolve().parent / "quickstart.toml"

EXIT_CODES: Final = (
    "Exit codes: 0 good; 1 ran, but an invariant or expectation failed; 2 bad input or usage, nothing was started; "
    "3 this machine cannot do it; 130 interrupted, network removed, records kept."
)

app = typer.Typer(
    epilog=EXIT_CODES,
    invoke_without_command=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
topo = typer.Typer(help="Known topologies.", no_args_is_help=True)
app.add_typer(topo, name="topo")
app.add_typer(cli_vm.app, name="vm")


@app.callback()
def help_without_command(context: typer.Context) -> None:
    """Emulated testbed for hybrid conference service control over information-centric networks."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


class Mode(StrEnum):
    """What to run on."""

    EMULATED = "emulated"
    SIMULATED = "simulated"


class RunChoice(StrEnum):
    """What to run one experiment on."""

    EMULATED = "emulated"
    SIMULATED = "simulated"
    BOTH = "both"


ExperimentPath = Annotated[Path, typer.Argument(metavar="EXPERIMENT.toml", help="The experiment file.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Replace a key of the file, such as conference.mode=push."),
]
Out = Annotated[
    Path | None,
    typer.Option("--out", metavar="DIR", help="Run folder to make, instead of runs/<experiment>-<UTC time>."),
]
Seed = Annotated[int | None, typer.Option("--seed", min=0, help="Replace experiment.seed.")]


@app.command()
def run(
    experiment: ExperimentPath,
    out: Out = None,
    seed: Seed = None,
    mode: Annotated[
        RunChoice,
        typer.Option(
            help="Real hosts and links, or virtual time in one process; both: the first, then the second as its twin, and "
            "whether they agree."
        ),
    ] = RunChoice.EMULATED,
    overrides: Overrides = None,
    *,
    hold: Annotated[
        bool, typer.Option("--hold", help="Keep the network up when the experiment is over, until Ctrl-C.")
    ] = False,
) -> None:
    """Run one experiment and make its run folder. Takes root, unless it is simulated."""
    _run(_load(experiment, overrides, seed), out, mode.value, hold=hold)


@app.command()
def shell(
    subject: Annotated[
        str,
        typer.Argument(metavar="EXPERIMENT.toml|TOPOLOGY", help="An experiment file, or a name of `hconf topo list`."),
    ],
    out: Out = None,
    seed: Seed = None,
    overrides: Overrides = None,
) -> None:
    """Start a network and its conference and give a prompt over it: Mininet's CLI, and faults by hand. Takes root."""
    from experiments.shell.start import choose_experiment, run_shell

    experiment = choose_experiment(subject, [*(overrides or []), *_seed_override(seed)])
    _finish(run_shell(experiment, out=out))


@app.command()
def replay(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run, such as runs/latest.")],
    out: Out = None,
    mode: Annotated[
        Mode | None, typer.Option(help="Real hosts and links, or virtual time; as the run was, if not given.")
    ] = None,
    export: Annotated[
        Path | None,
        typer.Option("--export", metavar="FILE", help="Write an experiment file instead, and start nothing."),
    ] = None,
) -> None:
    """Run again what happened in a run: its schedule, and what was typed in its shell, at the same times."""
    from experiments.replay import load_replay, write_export

    replayed = load_replay(run)
    for note in replayed.notes:
        typer.echo(f"note: {note}", err=True)
    if export is not None:
        write_export(replayed, export)
        typer.echo(f"{export}: written. `hconf check {export}` checks it, `hconf run {export}` runs it.")
        return
    _run(replayed.experiment, out, mode.value if mode is not None else replayed.mode)


@app.command("exec", context_settings={"allow_interspersed_args": False})
def execute(
    node: Annotated[str, typer.Argument(metavar="NODE", help="A host of the run, such as ue1.")],
    program: Annotated[
        list[str] | None, typer.Argument(metavar="-- PROGRAM [ARGUMENT ...]", help="What to run there.")
    ] = None,
    *,
    run: Annotated[
        str | None, typer.Option("--run", metavar="RUN", help="ID or folder of the run, where several are alive.")
    ] = None,
) -> None:
    """Run a program in a host of a run that is alive, ready to reach the host's forwarder. Takes root."""
    from experiments.execution import execute_in_host

    program = program or []
    execute_in_host(node, program[1:] if program[:1] == ["--"] else program, run=run)


@app.command()
def demo(out: Out = None) -> None:
    """Run the quickstart: a conference over the Abilene network, one core link down and up again. Takes root."""
    _run(_load(QUICKSTART, None, None), out)


@app.command()
def check(
    experiment: Annotated[
        Path | None, typer.Argument(metavar="EXPERIMENT.toml", help="The experiment file.", show_default=False)
    ] = None,
    overrides: Overrides = None,
    *,
    reference: Annotated[bool, typer.Option("--reference", help="Print what every key of such a file means.")] = False,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema of such files, for editors.")] = False,
) -> None:
    """Validate an experiment file; start nothing."""
    if reference or schema:
        from experiments.spec_json_schema import schema_text
        from experiments.spec_reference import reference_page

        typer.echo(reference_page() if reference else schema_text(), nl=False)
        return
    if experiment is None:
        raise InputError(
            where="hconf check",
            problem="no experiment file given",
            remedy="try `hconf check experiments/quickstart.toml`",
        )
    from experiments.workloads import check_size

    loaded = _load(experiment, overrides, None)
    topology, settings = loaded.topology, loaded.settings
    check_size(loaded.workloads, devices=topology.ues, duration_s=settings.duration_s, where=str(experiment))
    typer.echo(
        f"{experiment}: good. {settings.name}: {topology.name}, {len(topology.nodes)} nodes, {len(topology.links)} links, "
        f"{len(topology.ues)} UEs; {len(loaded.workloads)} workloads, {len(loaded.faults)} faults, "
        f"{len(loaded.expectations)} expectations; {settings.duration_s:g} s."
    )
    for index, trace in loaded.traces.items():
        typer.echo(
            f"[[workload]] {index + 1}: {trace.path}: {trace.rows} rows, time_s from {trace.first_s:.12g} to "
            f"{trace.last_s:.12g}; {trace.replayed} of them are replayed."
        )


@app.command()
def report(
    runs: Annotated[
        list[Path] | None, typer.Argument(metavar="RUN...", help="Run folders, such as runs/latest.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Where a comparison goes, instead of runs/comparison-<UTC time>."),
    ] = None,
    *,
    columns: Annotated[bool, typer.Option("--columns", help="Print what every column and metric means.")] = False,
) -> None:
    """Make the CSV files, plots and report.html again from the raw records; of several runs, compare them, too.

    Works on any machine, without root. Runs with the same settings but for the seed are repetitions; the first run's group is what the
    others are compared with.
    """
    if columns:
        from experiments.columns import markdown

        typer.echo(markdown(), nl=False)
        return
    if not runs:
        raise InputError(where="hconf report", problem="no run folder given", remedy="try `hconf report runs/latest`")
    from experiments.reporting import report_runs

    report_runs(runs, out)


@app.command()
def sweep(
    experiment: ExperimentPath,
    values: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=A,B,C", help="Values of a key, such as conference.mode=push,hybrid."),
    ] = None,
    seeds: Annotated[str | None, typer.Option("--seeds", metavar="1-10", help="Each point with each of these.")] = None,
    mode: Annotated[Mode, typer.Option(help="As for run. Emulated points run one after the other.")] = Mode.SIMULATED,
    jobs: Annotated[
        int | None, typer.Option("--jobs", min=1, max=1_024, help="Simulated points at a time; else one a core.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Folder of the sweep, instead of runs/sweep-<experiment>-<key>."),
    ] = None,
    dask: Annotated[
        str | None,
        typer.Option("--dask", metavar="SCHEDULER", help="Address of a Dask scheduler whose workers run the points."),
    ] = None,
    *,
    side_by_side: Annotated[
        bool, typer.Option("--list", help="Take the values of all --set side by side, not in every combination.")
    ] = False,
) -> None:
    """Run one experiment with every combination of values and every seed, and compare them: sweep.csv, report.html.

    The same command goes on with a sweep that was broken off; what is finished is not run again.
    """
    from experiments.sweep.plan import parse_seeds, plan_sweep
    from experiments.sweep.reporting import sweep_and_report

    chosen = parse_seeds(seeds) if seeds is not None else None
    plan = plan_sweep(experiment, values or [], seeds=chosen, mode=mode.value, is_list=side_by_side)
    raise typer.Exit(sweep_and_report(plan, out=out, jobs=jobs, dask=dask))


@app.command("fuzz-schedules")
def fuzz_schedules(
    runs: Annotated[int, typer.Option(min=1, help="How many schedules.")] = 100,
    seed: Annotated[int, typer.Option(min=0, help="The first; the others have the numbers after it.")] = 1,
    time_limit_s: Annotated[
        float | None, typer.Option("--time-limit-s", min=1, help="Stop after so many seconds, good or not yet all run.")
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Where a shrunk schedule goes, as an experiment file.")
    ] = Path(),
) -> None:
    """Run random schedules of faults, simulated, and check every invariant. Works without root."""
    from experiments.fuzz.campaign import run_campaign, write_shrunk

    if not out.is_dir():
        raise InputError(where="--out", problem=f"{out} is no folder", remedy="make it, or leave --out out")
    try:
        campaign = run_campaign(seed, runs=runs, time_limit_s=time_limit_s)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    typer.echo(
        f"{campaign.runs} schedules from {seed} on, {campaign.virtual_s:.0f} s of conferences in {campaign.wall_s:.1f} s"
    )
    if (broken := campaign.broken) is None:
        typer.echo("No violation.")
        return
    typer.echo(f"Schedule {broken.seed} broke what must always hold:")
    typer.echo("\n".join(f"  {violation}" for violation in broken.violations))
    typer.echo("Shrinking it ...")
    path = write_shrunk(broken, out)
    typer.echo(path.read_text(encoding="utf-8"))
    typer.echo(f"Written to {path}: hconf run --mode simulated {path}")
    typer.echo(f"The whole schedule: hconf fuzz-schedules --runs 1 --seed {broken.seed}")
    raise typer.Exit(1)


@app.command()
def doctor(
    experiment: Annotated[
        Path | None, typer.Argument(help="Compare this machine's limits with what this experiment needs.")
    ] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON array instead of tables.")] = False,
) -> None:
    """Say what this machine can emulate, what is missing, and the command that mends it."""
    from experiments import compiler
    from testbed import doctor as machine

    topology = _load(experiment, None, None).topology if experiment else None
    capabilities = [*machine.collect(topology), compiler.capability()]
    if as_json:
        typer.echo(machine.as_json(capabilities))
    else:
        from rich.console import Console

        Console().print(machine.as_table(capabilities), machine.as_impairments_table(capabilities), sep="\n\n")
    if not machine.can_run(capabilities):
        raise typer.Exit(CapabilityError.exit_code)


@app.command("compile")
def compile_protocol() -> None:
    """Compile the protocol for speed; ./hconf does it once, and after changes to proxy/ it is up to you."""
    from experiments import compiler

    typer.echo(f"compiled: {compiler.compile_machines()}")


@app.command()
def clean() -> None:
    """Remove what a killed run left, and only what hconf made."""
    from testbed.emulation import ownership

    if os.geteuid() != 0 and ownership.find_leftovers():
        raise CapabilityError(where="this user", problem="what a run left belongs to root", remedy="run it with sudo")
    lines = ownership.clean()
    typer.echo("\n".join(lines) if lines else "Nothing was left by a killed run.")


@app.command(
    "test", context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
)
def run_tests(context: typer.Context) -> None:
    """Run every check and test of hconf itself; other arguments go to pytest, --fast leaves out what takes root."""
    from experiments import selftest

    raise typer.Exit(selftest.main(context.args))


@topo.command("list")
def list_topologies(
    pattern: Annotated[str, typer.Argument(metavar="TEXT", help="Only names that contain this.")] = "",
) -> None:
    """Print the names of all known topologies."""
    from topologies import catalogue

    names = [name for name in catalogue.list_names() if pattern.casefold() in name.casefold()]
    if not names:
        raise InputError(
            where="hconf topo list", problem=f"no name contains `{pattern}`", remedy="leave it out: all are shown"
        )
    typer.echo("\n".join(names))


@topo.command("show")
def show_topology(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME|FILE", help="Such as tiers, topozoo/Abilene, or a .graphml, .conf or .py file."),
    ],
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A parameter, such as csrs=4.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Draw it into this .png, .svg or .pdf file instead.")
    ] = None,
) -> None:
    """Print the nodes and links of one topology, or draw it."""
    from topologies import catalogue

    topology = catalogue.build(name, _parameters(overrides or []))
    if out is not None:
        from experiments.topology_drawing import write_drawing

        write_drawing(topology, out)
        typer.echo(f"{topology.name}: {len(topology.nodes)} nodes, {len(topology.links)} links, drawn to {out}")
        return
    from rich.console import Console

    from experiments.topology_view import print_topology

    print_topology(Console(), topology)


def _load(path: Path, overrides: list[str] | None, seed: int | None) -> Experiment:
    from experiments.spec import load_experiment

    return load_experiment(path, [*(overrides or []), *_seed_override(seed)])


def _seed_override(seed: int | None) -> list[str]:
    return [f"experiment.seed={seed}"] if seed is not None else []


def _run(
    experiment: Experiment, out: Path | None, mode: RunMode | Literal["both"] = "emulated", *, hold: bool = False
) -> None:
    from experiments.progress import choose_progress
    from experiments.runner import run_experiment

    progress = choose_progress(experiment.settings.name)
    _finish(run_experiment(experiment, out=out, progress=progress, mode=mode, hold=hold, page=True))


def _finish(outcome: Outcome) -> NoReturn:
    """Print what came of a run, and end with its exit code."""
    from rich.console import Console

    from experiments.report import print_summary

    print_summary(Console(), outcome.folder, outcome.analysis, outcome.manifest)
    raise typer.Exit(outcome.exit_code)


def _parameters(assignments: list[str]) -> dict[str, object]:
    """Return parameters of a topology; as in ``--set`` of an experiment, a word may stand without quotes."""
    from experiments.spec_overrides import parse_value

    parameters: dict[str, object] = {}
    for assignment in assignments:
        try:
            parameters |= tomllib.loads(assignment)
        except tomllib.TOMLDecodeError as error:
            key, equals, value = assignment.partition("=")
            if not (equals and key.strip().isidentifier()):
                raise InputError(
                    where=f"--set {assignment}", problem=f"is no assignment: {error}", remedy="write key=value"
                ) from error
            parameters[key.strip()] = parse_value(value)
    return parameters


def main() -> None:
    """Entry point of the console script. Wrong input ends with one message, never with a traceback."""
    try:
        app(prog_name="hconf")
    except HconfError as error:
        typer.echo(f"hconf: {error}", err=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()

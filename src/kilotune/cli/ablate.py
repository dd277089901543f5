"""`kilotune ablate`: one factor at a time, from a base recipe to a better one."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from kilotune.cli import options
from kilotune.cli.data_options import DataOptions
from kilotune.cli.option_groups import Only
from kilotune.cli.results import print_changes
from kilotune.cli.tables import print_wide
from kilotune.cli.terminal import TerminalProgress, command, out, print_json, put
from kilotune.cli.trust import read_run
from kilotune.errors import KilotuneError

if TYPE_CHECKING:
    from kilotune.ablation.ray_cluster import ClusterAddress
    from kilotune.workflows.ablate import Experiment


@dataclass(frozen=True)
class ClusterOptions:
    """Where the trials of an ablation are done."""

    address: Annotated[
        str | None,
        typer.Option(
            "--ray",
            metavar="ADDRESS|local",
            help="Trials on a Ray cluster, as many at once as it has room for; auto: the one that "
            "this machine belongs to, local: one of this machine alone.",
            show_default="here, one by one",
        ),
    ] = None
    cpus: Annotated[
        float | None,
        typer.Option(
            "--ray-cpus",
            min=0,
            help="CPUs of one trial.",
            show_default="1 beside a GPU, else up to 2",
        ),
    ] = None
    gpus: Annotated[
        float | None,
        typer.Option(
            "--ray-gpus",
            min=0,
            help="GPUs of one trial.",
            show_default="1 if the cluster has any",
        ),
    ] = None

    def place(self) -> "ClusterAddress | None":
        """The cluster, None for this process. Raises KilotuneError for the room of none."""
        from kilotune.ablation.ray_cluster import ClusterAddress

        if self.address is not None:
            return ClusterAddress(self.address, self.cpus, self.gpus)
        if self.cpus is not None or self.gpus is not None:
            raise KilotuneError(
                "--ray-cpus and --ray-gpus are of trials on a Ray cluster",
                fix="Give its address: --ray ADDRESS, or --ray local",
            )
        return None


def ablate(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="RECIPE|DATA|ABLATION",
            help="A recipe, a labelled file, or the folder of an ablation to go on with.",
        ),
    ],
    *,
    minutes: Annotated[
        float | None,
        typer.Option(
            min=0.1, help="Time for the trials, added up over all workers.", show_default="no limit"
        ),
    ] = None,
    trials: Annotated[
        int | None, typer.Option(min=1, help="Trainings at most.", show_default="no limit")
    ] = None,
    factors: Annotated[
        list[str] | None,
        typer.Option("--factor", help="Try this factor; repeatable.", show_default="all"),
    ] = None,
    data: Annotated[DataOptions, Only("test", "model", "preset", "settings", "trust_code")],
    folder: Annotated[
        Path | None,
        typer.Option("--out", help="Folder; must be new.", show_default="runs/DATE-NAME-ablation"),
    ] = None,
    cluster: ClusterOptions,
    as_json: options.Json = False,
) -> None:
    """Try one factor at a time, judged out of fold; tune and judge the best recipe at the end."""
    with command(as_json):
        from kilotune.runs.record import RunFolder

        place = cluster.place()
        if RunFolder(source).ablation:
            allowed = DataOptions(trust_code=data.trust_code, settings=data.settings)
            if factors or folder or data != allowed:
                raise KilotuneError(
                    "an ablation goes on with the settings it began with",
                    where=str(source),
                    fix="Give --minutes, --trials, --ray or --set of a path alone, or start a new "
                    "one",
                )
            go_on(
                source, place, minutes=minutes, trials=trials, moved=data.settings or (),
                trust_code=data.trust_code, as_json=as_json,
            )  # fmt: skip
        else:
            given: dict[str, Any] = {"minutes": minutes, "trials": trials, "only": factors}
            asked = [f"ablation.{name}={_written(v)}" for name, v in given.items() if v is not None]
            recipe = data.recipe(source, overrides=asked)
            from kilotune.workflows import ablate as experiment

            _show(experiment.ablate(recipe, folder, TerminalProgress(), place), as_json)


def go_on(
    folder: Path,
    place: "ClusterAddress | None" = None,
    *,
    minutes: float | None = None,
    trials: int | None = None,
    moved: Sequence[str] = (),
    trust_code: bool = False,
    as_json: bool = False,
) -> None:
    """Go on with the ablation in `folder`, and show how it ended."""
    from kilotune.recipe.functions import PARTS

    read_run(folder, trust_code, PARTS, moved)  # a wrong folder is said before torch loads
    from kilotune.workflows import ablate as experiment

    found = experiment.resume(
        folder, TerminalProgress(), place, minutes=minutes, trials=trials, moved=moved,
        trust_code=trust_code,
    )  # fmt: skip
    _show(found, as_json)


def _show(found: "Experiment", as_json: bool) -> None:
    if as_json:
        print_json(_document(found))
    else:
        _print(found)


def _written(value: Any) -> str:
    return f"[{', '.join(value)}]" if isinstance(value, list) else str(value)


def _document(found: "Experiment") -> dict[str, Any]:
    from kilotune.runs.outcomes import AblationDocument, JudgementDocument
    from kilotune.runs.record import RunFolder

    return {
        "ablation": found.folder,
        **RunFolder(found.folder).read(AblationDocument).content(),
        "trials": found.trials,
        "lost": found.lost,
        "cost": found.cost,
        "overhead": found.overhead,
        "final": found.final,
        "test": RunFolder(found.final).read(JudgementDocument).test,
    }


def _print(found: "Experiment") -> None:
    from kilotune.evaluation.task_metrics import TITLES
    from kilotune.runs import record
    from kilotune.runs.outcomes import JudgementDocument
    from kilotune.runs.record import RunFolder

    table = Table(title="One factor at a time", title_justify="left", box=SIMPLE_HEAD)
    for name in ("factor", "tried", "trials", "gain", "decision", "reason", "cost"):
        table.add_column(name, overflow="fold")
    for rung in found.ablation.rungs:
        for tried in rung.tried:
            cells = (
                f"{rung.factor}, {rung.before}", tried.value, str(tried.trials), str(tried.gain),
                tried.decision, tried.reason, f"{tried.cost.seconds:.0f} s",
            )  # fmt: skip
            style = "bold" if tried.decision == "adopted" else None
            table.add_row(*map(Text, cells), style=style)
    print_wide(table)
    put(out, f"Ended: {found.ablation.ended}")
    put(out, f"{found.trials} trials, {found.cost.seconds:.0f} s, of which "
        f"{found.overhead:.1%} neither steps nor answers")  # fmt: skip
    if found.lost:
        put(out, f"{found.lost} more were lost with their workers, and done again")
    if found.ablation.out_of_fold:
        put(out, f"Best recipe, out of fold: {found.ablation.out_of_fold}")
    print_changes(found.changes, none="the base recipe: no change was adopted")
    tuned = RunFolder(found.final).read(JudgementDocument).tuned
    figures = ", ".join(f"{TITLES[name]} {figure}" for name, figure in tuned.figures.items())
    put(out, f"Held-out test, opened once, {tuned.examples} examples: {figures}", style="bold")
    put(out, f"Recipe:  {found.folder / record.BEST}")
    put(out, f"Run:     {found.final}")

"""`kilotune advise`: what to do with a labelled file before tuning on it."""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from kilotune.cli import options
from kilotune.cli.data_options import RENDERED, DataOptions
from kilotune.cli.option_groups import Only
from kilotune.cli.tables import new_table
from kilotune.cli.terminal import WANTING, TerminalProgress, command, out, print_json, put

if TYPE_CHECKING:
    from kilotune.workflows.advise import Advised

# The rarest labels; --json has all.
SHOWN_LABELS = 8
NAMES = {"train": "training", "validation": "validation"}


def advise(
    source: options.Source,
    *,
    data: Annotated[DataOptions, Only(*RENDERED, "val", "test")],
    no_model: Annotated[
        bool,
        typer.Option(
            "--no-model",
            help="Ask no language model: words, and a sentence encoder that was fetched.",
            show_default="asked where it is on this machine",
        ),
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Say what to do before tuning: repair, label more, prompt, tune, or use something simpler.

    Simple systems are asked about the training and validation examples, out of fold; the held-out
    test stays closed. Exit status 1 means that the data are found wanting.
    """
    with command(as_json):
        recipe = data.recipe(source)

        from kilotune.workflows.advise import advise as ask

        found = ask(recipe, model=not no_model, progress=TerminalProgress())
        status = WANTING if found.wanting else 0
        if as_json:
            print_json(found, status)
        else:
            show(found)
    raise typer.Exit(status)


def show(found: "Advised") -> None:
    """The advice for a person, and below it the figures that it rests on."""
    out.print()
    for number, advice in enumerate(found.advice, 1):
        put(out, f"{advice}.", lead=Text.assemble((f"{number} {advice.code:<13} ", "bold")))
    out.print()
    _show_systems(found)
    _show_curves(found)
    _show_labels(found)
    _show_models(found)
    put(out, "The held-out test was not looked at.", style="dim")


def _show_systems(found: "Advised") -> None:
    from kilotune.evaluation.task_metrics import TITLES
    from kilotune.reports.view import system_title

    total = sum(found.examples.values())
    parts = " and ".join(f"{count} {NAMES[name]}" for name, count in found.examples.items())
    figures = [TITLES[name] for name in found.systems[0].figures]
    sampled = any(system.examples < total for system in found.systems)
    table = new_table(
        "system", right=(*figures, "unread"), no_wrap=True,
        title=f"Out of fold on {parts} examples, 95% intervals"
        + "\n(n): asked so many of them" * sampled,
    )  # fmt: skip
    for system in found.systems:
        title = system_title(system.name, system.figures)
        title += f" ({system.examples})" if system.examples < total else ""
        table.add_row(title, *map(Text, (*map(str, system.figures.values()), str(system.unread))))
    out.print(table)


def _show_curves(found: "Advised") -> None:
    from kilotune.evaluation.task_metrics import TITLES
    from kilotune.reports.view import system_title

    if not found.curves:
        return
    first = found.curves[0]
    sizes = [str(point.rows) for point in first.points]
    table = new_table(
        "labels", right=(*sizes, f"{first.outlooks[0].rows} (points)"), no_wrap=True,
        title=f"{TITLES[first.metric]} by labels learnt from, and what twice today's may add",
    )  # fmt: skip
    for curve in found.curves:
        values = [f"{point.figure.value:.3f}" for point in curve.points]
        gain = curve.doubled
        ahead = f"{100 * gain.value:+.1f} [{100 * gain.low:+.1f}, {100 * gain.high:+.1f}]"
        title = system_title(curve.system, found.systems[0].figures)
        table.add_row(title, *map(Text, (*values, ahead)))
    out.print(table)


def _show_labels(found: "Advised") -> None:
    if not found.labels:
        return
    rarest = list(found.labels.items())
    named = ", ".join(f"{label} {count}" for label, count in rarest[:SHOWN_LABELS])
    more = f" and {len(rarest) - SHOWN_LABELS} more" if len(rarest) > SHOWN_LABELS else ""
    put(out, f"Labels, the rarest first: {named}{more}")


def _show_models(found: "Advised") -> None:
    if not found.models:
        put(out, "No language model is on this machine (kilotune fetch smollm2)")
        return
    figures = ("parameters", "training takes", "fits", "tokens/100", "in pieces")
    table = new_table("model at hand", right=figures, title="Memory and writing, from sizes alone")
    for model in found.models:
        if model.memory is None or model.tokens is None:
            put(out, f"{model.name}: {model.why}")
            continue
        table.add_row(
            Text(model.name), f"{(model.parameters or 0) / 1e6:,.0f}M",
            f"{model.memory / 1e9:.1f} GB", "yes" if model.fits else "no",
            f"{model.tokens:.0f}", f"{model.pieces:.0%}",
        )  # fmt: skip
    out.print(table)
    put(out, f"Of these suit memory and writing: {', '.join(found.suited) or 'none'}")

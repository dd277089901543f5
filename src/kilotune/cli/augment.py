"""`kilotune augment`: more training examples out of those there are."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kilotune.cli import options
from kilotune.cli.data_options import COLUMNS, DataOptions
from kilotune.cli.option_groups import Only
from kilotune.cli.terminal import (
    TerminalProgress,
    command,
    out,
    print_json,
    print_line,
    print_result,
    put,
)
from kilotune.errors import KilotuneError

if TYPE_CHECKING:
    from kilotune.recipe.schema import Recipe


@dataclass(frozen=True)
class OperationOptions:
    """What the options say of a recipe's `augment`."""

    ops: Annotated[
        list[str] | None,
        typer.Option(
            "--op",
            metavar="NAME",
            help="An operation; repeatable. docs/augmentation.md",
            show_default="the recipe's",
        ),
    ] = None
    copies: Annotated[
        int, typer.Option(min=1, max=1000, help="How often each is applied to each example.")
    ] = 1
    alpha: Annotated[
        float, typer.Option(min=0.01, max=0.99, help="Share of the words that are changed.")
    ] = 0.1
    balanced: Annotated[
        bool,
        typer.Option(
            "--balanced", help="Only bring rare labels up to the commonest.", show_default="off"
        ),
    ] = False
    translators: Annotated[
        list[str] | None,
        typer.Option(
            "--translator",
            metavar="KIND:NAME",
            help="For back-translation; repeatable.",
            show_default="the recipe's",
        ),
    ] = None

    def put_over(self, recipe: "Recipe") -> "Recipe":
        """The recipe with what the options say over it."""
        from kilotune.recipe.schema import OperationSettings

        changes: dict[str, Any] = {}
        if self.ops:
            changes["augment.operations"] = tuple(
                OperationSettings(op=op, copies=self.copies, alpha=self.alpha) for op in self.ops
            )
        if self.balanced:
            changes["augment.target"] = "balanced"
        if self.translators:
            changes["augment.translators"] = tuple(self.translators)
        return recipe.with_settings(changes)


@dataclass(frozen=True)
class TrialOptions:
    """Whether the operations are tried, and how often."""

    trial: Annotated[
        bool,
        typer.Option(
            "--trial",
            help="Tune with each operation and without, and say which earn their place. OUT is "
            "then a folder; the same command goes on with it.",
            show_default="off",
        ),
    ] = False
    folds: Annotated[int, typer.Option(min=2, max=100, help="Folds of a trial.")] = 5
    seeds: Annotated[int, typer.Option(min=3, max=100, help="Seeds of a trial.")] = 3


def augment(
    source: options.Source,
    *,
    target: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            metavar="OUT",
            help="The file to write; must be new.",
            show_default="none",
        ),
    ] = None,
    operations: OperationOptions,
    preview: Annotated[
        Path | None,
        typer.Option(
            metavar="PNG",
            help="Show what is made of some images, in one picture; must be new.",
            show_default="none",
        ),
    ] = None,
    trial: TrialOptions,
    data: Annotated[
        DataOptions,
        Only(*COLUMNS, "task", "val", "test", "model", "settings", "trust_code"),
    ],
    as_json: options.Json = False,
) -> None:
    """Write the training part with new examples made of it, each with its operation and parent.

    What is held out is split off first, and written beside OUT: nothing is made of it.
    """
    with command(as_json):
        recipe = operations.put_over(data.recipe(source))
        if preview is not None:
            _preview(recipe, preview, as_json)
            return
        if target is None:
            raise KilotuneError("no file to write is named", fix="Name one: -o more.csv")
        if trial.trial:
            _try(recipe, target, trial, as_json)
        else:
            _write(recipe, target, as_json)


def _write(recipe: "Recipe", target: Path, as_json: bool) -> None:
    from kilotune.session.training_augmentation import as_document
    from kilotune.workflows import augment as workflow

    done = workflow.augment(recipe, target, TerminalProgress())
    if as_json:
        print_json(
            {
                "out": done.out,
                "originals": done.originals,
                "parts": done.parts,
                "findings": done.findings,
                **as_document(done.augmented).content(),
            }
        )
        return
    more = len(done.augmented.examples)
    print_line(f"{done.originals} examples and {more} made of them: {target}")
    for name, path in done.parts.items():
        put(out, f"{name} was split off first and is held out: {path}")
    held = " ".join(
        f"--{'val' if name == 'validation' else name} {path}" for name, path in done.parts.items()
    )
    put(out, f"Train on it with: kilotune run {target} {held}".rstrip())


def _try(recipe: "Recipe", folder: Path, trial: TrialOptions, as_json: bool) -> None:
    from kilotune.workflows.augmentation_trial import LONGER, run_trial

    found = run_trial(recipe, folder, TerminalProgress(), folds=trial.folds, seeds=trial.seeds)
    if as_json:
        decided = {"decisions": found.decisions, "beyond": found.beyond, "earned": found.earned}
        print_json({"trial": folder, "metric": found.metric, **decided})
        return
    first = next(iter(found.decisions.values()))
    examples = f"{first.examples} examples out of fold, {first.seeds[0]} seeds"
    put(out, f"without: {found.metric} {first.before:.3f} ({examples})")
    for name, adoption in found.decisions.items():
        put(out, f"{name}: {found.metric} {adoption.after:.3f}; {adoption.reason}")
    if found.earned:
        put(out, f"better than without, in as many steps too: {', '.join(found.earned)}")
    elif found.decisions[LONGER].adopted:
        put(out, "no operation is better than as many steps without: try more of tune.epochs")
    else:
        put(out, "no operation is better than without, in as many steps too")


def _preview(recipe: "Recipe", path: Path, as_json: bool) -> None:
    from kilotune.workflows.augment import write_sheet

    shown = write_sheet(recipe, path, TerminalProgress())
    line = f"{len(shown)} examples: {path}"
    print_result({"preview": path, "shown": shown}, line, as_json=as_json)

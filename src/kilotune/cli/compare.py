"""`kilotune compare`: two runs side by side."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from kilotune.cli import options
from kilotune.cli.results import print_changes
from kilotune.cli.tables import new_table
from kilotune.cli.terminal import command, one_line, out, print_json, put

if TYPE_CHECKING:
    from kilotune.runs.comparison import Epoch, Paired, RunComparison

MOST_SHOWN = 10


def compare(
    before: Annotated[Path, typer.Argument(metavar="A", help="The folder of a finished run.")],
    after: Annotated[Path, typer.Argument(metavar="B", help="The folder of another.")],
    as_json: options.Json = False,
) -> None:
    """Show how B differs from A: recipe, paired evidence on validation, curves, answers."""
    with command(as_json):
        from kilotune.runs import comparison

        found = comparison.compare(before, after)
        if as_json:
            print_json(found)
        else:
            _print(found)


def _print(found: "RunComparison") -> None:
    put(out, "Recipe", style="bold")
    print_changes(found.changes, none="the same")
    put(out, f"Data: {'the same' if found.same_data else 'not the same'}", style="bold")
    put(out, f"Code: {'the same' if found.same_code else 'not the same'}", style="bold")
    for name, cost in zip("AB", found.costs, strict=True):
        if cost is not None:
            words = f"{cost.seconds:.0f} s, {cost.trained:,} tokens trained, "
            put(out, f"Cost of {name}: {words}{cost.generated:,} generated")
    _print_curves(*found.curves)
    put(out, "Validation: to choose by", style="bold")
    _print_paired(found.validation, "validation")
    put(out, "Held-out test: not to choose by, both have opened it", style="bold")
    _print_paired(found.test, "test", examples=False)


def _print_curves(before: tuple["Epoch", ...], after: tuple["Epoch", ...]) -> None:
    measured = dict.fromkeys(k for epoch in (*before, *after) for k in epoch.validation)
    figures = ("training loss", *(f"validation {name}" for name in measured))
    pairs = (column for name in figures for column in (f"{name}, A", "B"))
    table = new_table(right=("epoch", *pairs), title="Curves")
    rows = [{epoch.epoch: epoch for epoch in run} for run in (before, after)]
    for number in sorted({*rows[0], *rows[1]}):
        both = [run.get(number) for run in rows]
        cells = [epoch.loss if epoch else None for epoch in both]
        for name in measured:
            cells += [epoch.validation.get(name) if epoch else None for epoch in both]
        table.add_row(f"{number:g}", *("" if c is None else f"{c:.3f}" for c in cells))
    out.print(table)


def _print_paired(paired: "Paired | None", part: str, *, examples: bool = True) -> None:
    if paired is None:
        put(out, f"the two have no {part} example in common", lead="  ")
        return
    found, right = paired.evidence, paired.right
    put(out, f"A {found.before:.3f}, B {found.after:.3f} on {found.examples} examples", lead="  ")
    put(out, f"gain {found.gain}; {right.wins} better, {right.losses} worse "
        f"(McNemar p = {right.p_value:.2g})", lead="  ")  # fmt: skip
    if paired.left_out:
        put(out, f"{paired.left_out} examples that only one was asked are left out", lead="  ")
    if not examples:
        return
    put(out, f"B instead of A? {found.decision}: {found.reason}", lead="  ")
    for example in paired.changed[:MOST_SHOWN]:
        mark = Text("better ", "green") if example.better else Text("worse  ", "red")
        words = f"{example.id}: {one_line(example.prompt)} → {one_line(example.reference)}; "
        put(out, f"{words}A: {one_line(example.before)}; B: {one_line(example.after)}", lead=mark)
    if len(paired.changed) > MOST_SHOWN:
        put(out, f"and {len(paired.changed) - MOST_SHOWN} more; all of them: --json", lead="  ")

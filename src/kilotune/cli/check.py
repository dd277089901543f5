"""`kilotune check`: what is wrong with a labelled file."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from kilotune.cli import options
from kilotune.cli.data_options import COLUMNS, DataOptions
from kilotune.cli.findings import print_findings
from kilotune.cli.option_groups import Only
from kilotune.cli.tables import new_table
from kilotune.cli.terminal import command, out, print_json, print_line, put, shown, status_of

if TYPE_CHECKING:
    from kilotune.data.repair import Repair
    from kilotune.preparation.inspection import Inspection
    from kilotune.recipe.schema import DataSettings

# More classes make a screen unreadable; --json has all.
SHOWN_CLASSES = 20


@dataclass(frozen=True)
class FurtherChecks:
    """What is looked at only where it is asked for."""

    tokenizer: Annotated[
        str | None,
        typer.Option(help="Count tokens with this model's.", show_default="estimated"),
    ] = None
    label_errors: Annotated[
        bool,
        typer.Option(
            "--label-errors", help="Look for wrong labels with a bag of words.", show_default="off"
        ),
    ] = False
    out_of_fold: Annotated[
        Path | None,
        typer.Option(
            help="Look for wrong labels with these predictions: a column id and one a label.",
            show_default="none",
        ),
    ] = None

    def inspector(self, data: "DataSettings") -> Callable[[list[Path]], "Inspection"]:
        """Inspects files as the recipe's `data` says that they are read."""
        from kilotune.preparation.inspection import check as inspect
        from kilotune.preparation.prepare import reading

        return partial(
            inspect,
            reading=reading(data),
            validation=data.validation,
            test=data.test,
            count_tokens=_counter(self.tokenizer) if self.tokenizer else None,
            label_errors=self.label_errors,
            probabilities=self.out_of_fold,
        )


def check(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="DATA|RECIPE", help="Labelled files or folders, or one .yaml."),
    ],
    *,
    data: Annotated[DataOptions, Only(*COLUMNS, "split", "task", "val", "test")],
    further: FurtherChecks,
    fix: Annotated[
        Path | None,
        typer.Option(
            metavar="OUT",
            help="Write a copy with what can be repaired safely, and OUT.changes.jsonl.",
            show_default="none",
        ),
    ] = None,
    settings: options.Settings = None,
    as_json: options.Json = False,
) -> None:
    """Find what is wrong with labelled files; no model is needed.

    With --fix the exit status is that of the repaired copy.
    """
    with command(as_json):
        from kilotune.data.repair import check_repairable
        from kilotune.preparation.inspection import mend
        from kilotune.preparation.prepare import reading
        from kilotune.rendering.wording import wording

        if fix:
            check_repairable(fix)
        given = data.recipe(files[0], overrides=settings or (), runs=()).data
        files = [given.train, *files[1:]]
        look = further.inspector(given)
        inspection = look(files)
        # What a run would say of the recipe's wording.
        labels = list(inspection.classes) if inspection.task == "classify" else []
        wording(given.system, given.question, labels, given.label_wording)
        document: Any = inspection
        if not as_json:
            _print(inspection)
        if fix:
            changes = mend(files, reading(given), fix)
            # Paths in the copy lead from its own folder.
            copied = given.model_copy(update={"images": None})
            inspection = further.inspector(copied)([fix])
            document = {**shown(inspection), "before": document, "changes": changes}
            if not as_json:
                _print_repaired(fix, changes, inspection)
        if as_json:
            print_json(document, status_of(inspection.findings))
    raise typer.Exit(status_of(inspection.findings))


def _counter(name: str) -> Callable[[str], int]:
    """Counts tokens with a model's tokenizer. This alone imports transformers."""
    from kilotune.models.source import locate
    from kilotune.recipe.schema import ModelSettings

    tokenizer = locate(ModelSettings(name=name)).tokenizer()
    return lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"])


def _print(inspection: "Inspection") -> None:
    put(out, f"detected: {inspection.title}; task: {inspection.task}")
    count = inspection.examples["data"]
    parts = [f"{count:,} {name}" for name, count in inspection.examples.items() if name != "data"]
    out.print(", ".join([f"{count:,} example{'s' * (count != 1)}", *parts]))
    if inspection.unused:
        put(out, f"columns that are not read: {', '.join(inspection.unused)}")
    out.print()
    print_findings(inspection.findings, inspection.texts)
    _print_classes(inspection.classes)
    lengths = inspection.prompt_tokens
    if lengths:
        how = ", estimated without a tokenizer" if lengths.estimated else ""
        put(
            out,
            f"Tokens of a prompt: {lengths.least:,} to {lengths.most:,}, "
            f"median {lengths.median:,}, 95% at most {lengths.p95:,}{how}",
        )


def _print_repaired(path: Path, changes: Sequence["Repair"], after: "Inspection") -> None:
    out.print()
    for title, gone in (("Repaired", False), ("Rows left out", True)):
        counts = Counter(
            change.code
            for change in changes
            if (change.after is None) == gone and change.code != "image-moved"
        )
        if counts or not gone:
            said = ", ".join(f"{count} {code}" for code, count in counts.items()) or "nothing"
            put(out, f"{title}: {said}", style="bold")
    print_line(f"{path}\n{path}.changes.jsonl")
    left = [f.code for f in after.findings if f.severity != "note"]
    put(out, f"Left for you: {', '.join(left) or 'nothing'}")


def _print_classes(classes: dict[str, int]) -> None:
    if not classes:
        return
    total = sum(classes.values())
    table = new_table("label", right=("examples", "share"))
    for label, count in list(classes.items())[:SHOWN_CLASSES]:
        table.add_row(Text(label), f"{count:,}", f"{count / total:.0%}")
    out.print(table)
    if len(classes) > SHOWN_CLASSES:
        out.print(f"and {len(classes) - SHOWN_CLASSES} more labels (--json lists them)")

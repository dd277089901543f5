"""`kilotune predict`: label new texts."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from kilotune.cli.terminal import WANTING, TerminalProgress, command, log, out, print_json

EXAMPLES = """Example:

    kilotune predict runs/2026-01-31-reviews new.csv -o labelled.csv
"""


def predict(
    run: Annotated[Path, typer.Argument(help="The folder of a finished run.")],
    file: Annotated[Path, typer.Argument(help="CSV, TSV, JSON or JSON Lines with the texts.")],
    output: Annotated[Path, typer.Option("-o", "--out", help="The file to write; must be new.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Answer every row of a file: its columns, `prediction` and, for labels, `probability`.

    Exit status 1 when rows could not be put to the model; the others are answered.
    """
    with command(as_json):
        from kilotune.data.readers import read_table
        from kilotune.experiments.record import RunFolder

        RunFolder(run).read_recipe()
        read_table(file)  # what is wrong with it is said before the libraries load

        from kilotune.predict import predict as label

        done = label(run, file, output, TerminalProgress())
        status = WANTING if done.not_answered else 0
        if done.unlabelled:
            log.print(f"  {done.unlabelled} of {done.rows} answers are empty or named no label")
        if done.not_answered:
            errors = [finding for finding in done.findings if finding.severity == "error"]
            said = "; ".join(finding.message for finding in errors)
            what = f"kilotune: {len(done.not_answered)} of {done.rows} rows not answered: {said}"
            log.print(f"{what}. {errors[0].fix}", style="red", markup=False, soft_wrap=True)
        if as_json:
            fields = {"files": [file], "out": output, **asdict(done)}
            print_json({**fields, "not_answered": done.not_answered}, status)
        else:
            out.print(f"{done.rows} rows: {output}", markup=False, soft_wrap=True)
    raise typer.Exit(status)

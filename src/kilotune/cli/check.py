"""`kilotune check`: what is wrong with a labelled file."""

from pathlib import Path
from typing import Annotated

import typer

from kilotune.cli.terminal import WANTING, command, out, print_json

EXAMPLES = """Example:

    kilotune check reviews.csv --text text --label label
"""


def check(
    file: Annotated[Path, typer.Argument(help="CSV, TSV, JSON or JSON Lines.")],
    text: Annotated[str | None, typer.Option(help="The column with the text.")] = None,
    label: Annotated[str | None, typer.Option(help="The column with the label.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Find what is wrong with a labelled file. Needs no model; exit status 1 if anything is."""
    with command(as_json):
        from kilotune.data.checks import check_examples
        from kilotune.data.normalise import load_examples

        examples = load_examples(file, text=text, label=label)
        findings = check_examples(examples)
        if as_json:
            print_json({"file": file, "examples": len(examples), "findings": findings})
        else:
            for finding in findings:
                color = {"error": "red", "warning": "yellow"}.get(finding.severity, "blue")
                out.print(f"[{color}]{finding.severity}[/{color}] {finding.code}: ", end="")
                out.print(str(finding), markup=False, soft_wrap=True)
            out.print(f"{len(examples)} examples, {len(findings)} findings")
    if findings:
        raise typer.Exit(WANTING)

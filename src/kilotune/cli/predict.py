"""`kilotune predict`: answers of a tuned model to new rows."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from kilotune.cli import options
from kilotune.cli.data_options import DataOptions
from kilotune.cli.findings import print_each
from kilotune.cli.option_groups import Only
from kilotune.cli.terminal import WANTING, TerminalProgress, command, log, print_result, put, shown
from kilotune.cli.trust import TrustCode, read_run


def predict(
    run: Annotated[Path, typer.Argument(help="The folder of a finished run.")],
    file: Annotated[Path, typer.Argument(help="Rows to answer, in the format trained on.")],
    output: Annotated[Path, typer.Option("-o", "--out", help="The file to write; must be new.")],
    *,
    system: Annotated[
        Literal["tuned", "tfidf", "encoder", "states", "few-shot"],
        typer.Option("--with", help="The tuned model, or a simpler system that the run fitted."),
    ] = "tuned",
    data: Annotated[DataOptions, Only("text", "columns", "images")],
    trust_code: TrustCode = False,
    as_json: options.Json = False,
) -> None:
    """Answer every row of a file: its columns, a prediction and, for labels, a probability.

    The columns are those that were trained on; --text and --column name others. Rows that cannot
    be put to the model are named; the others are answered. After Ctrl-C the same command goes on
    where it stopped.
    """
    with command(as_json):
        from kilotune.data.files.readers import read_table
        from kilotune.recipe.functions import MODEL

        read_run(run, trust_code, MODEL)
        read_table(file)  # what is wrong with it is said before the libraries load

        from kilotune.evaluation.task_metrics import TASKS
        from kilotune.preparation.prepare import NewRows
        from kilotune.workflows.predict import predict as answer

        done = answer(
            run,
            NewRows(file, data.named(), data.images),
            output,
            TerminalProgress(),
            system=system,
            trust_code=trust_code,
        )
        status = WANTING if done.not_answered else 0
        if done.empty:
            why = f"nothing was asked, or the answer was {TASKS[done.task].unreadable}"
            put(log, f"{done.empty} of {done.rows} predictions are empty: {why}", lead="  ")
        if done.not_answered:
            what = f"{len(done.not_answered)} of {done.rows} rows not answered"
            put(log, what, lead="kilotune: ", style="red")
            print_each([f for f in done.findings if f.severity == "error"], log)
        fields = {"files": [file], "out": output, **shown(done)}
        fields["not_answered"] = done.not_answered
        print_result(fields, f"{done.rows} rows: {output}", as_json=as_json, status=status)
    raise typer.Exit(status)

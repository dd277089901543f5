"""A finished run on the terminal: verdict, table, paths."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.text import Text

from kilotune.cli.tables import new_table
from kilotune.cli.terminal import out, print_json, print_line, put

if TYPE_CHECKING:
    from kilotune.evaluation.judgement import Judgement
    from kilotune.recipe.difference import SettingChange
    from kilotune.workflows.run import Run


def finish(run: "Run", as_json: bool) -> None:
    """Print the run for a person, or as one JSON document."""
    if as_json:
        print_json(as_document(run))
    else:
        _print(run)


def as_document(run: "Run") -> dict[str, Any]:
    """The run as one document."""
    return {
        "run": run.folder,
        "verdict": run.verdict,
        "test": run.judgements,
        "tuned_against_base": run.tuned_against_base,
        "forgetting": run.forgetting,
        "next_commands": _next(run),
        "pseudo_labels": run.pseudo_labels,
        "preference": run.preference,
        "weights": run.weights,
        "report": run.report,
    }


def _next(run: "Run") -> list[str]:
    """The verdict's next steps, each as a command to copy."""
    from kilotune.recipe.advice import next_commands

    return next_commands(run.folder, [step.arguments for step in run.verdict.next_steps])


def print_changes(changes: Mapping[str, "SettingChange"], *, none: str) -> None:
    """Each setting before and after, or `none` where no setting has changed."""
    for name, change in changes.items():
        put(out, f"{name}: {change.before} → {change.after}", lead="  ")
    if not changes:
        put(out, none, lead="  ")


def _details(judged: "Judgement", titles: Mapping[str, str]) -> str:
    """The tuned model's further figures, on one line; their intervals are in the report."""
    found = dict(judged.details)
    if judged.calibration:
        found |= {"ECE": judged.calibration.ece, "Brier score": judged.calibration.brier}
    said = [
        f"{titles.get(name, name)} "
        + (str(figure) if figure.value is None else f"{figure.value:.3f}")
        for name, figure in found.items()
    ]
    return f"Tuned model: {', '.join(said)}"


def _print(run: "Run") -> None:
    from kilotune.evaluation.forgetting import in_words
    from kilotune.evaluation.health import faults
    from kilotune.evaluation.preference import in_words as preferred
    from kilotune.evaluation.task_metrics import TITLES as METRICS
    from kilotune.messages.sentences import say
    from kilotune.reports.view import system_title

    verdict = run.verdict
    out.print()
    for remark in verdict.remarks:
        put(out, f"{say(remark)}.", style="bold red")
    style = "bold green" if verdict.name == "healthy" else "bold yellow"
    put(out, f"Verdict: {verdict.summary}.", style=style)
    if verdict.doubt:
        put(out, f"Likely, not sure: {say(verdict.doubt)}.")
    for step, line in zip(verdict.next_steps, _next(run), strict=True):
        put(out, f"{step.why}:", lead="  next, ")
        print_line(f"    {line}")
    out.print()
    title = f"Held-out test, {run.judgements[0].examples} examples, 95% intervals"
    figures = (*(METRICS[name] for name in run.judgements[0].figures), "unread")
    table = new_table("system", right=figures, title=title, no_wrap=True)
    for row in run.judgements:
        figures = (*map(str, row.figures.values()), str(row.unreadable))
        # A Text, since rich would read the intervals' brackets as markup.
        title = system_title(row.name, row.figures)
        table.add_row(title, *map(Text, figures), style="bold" if row.name == "tuned" else None)
    out.print(table)
    for row in run.judgements:
        if row.name == "tuned" and row.health and (found := faults(row.health)):
            put(out, f"Answers of the tuned model: {', '.join(found)}", style="bold yellow")
    if run.judgements[-1].details:
        put(out, _details(run.judgements[-1], METRICS))
    paired = run.tuned_against_base
    put(
        out,
        f"Tuned against base, same prompts: {paired.wins} better, {paired.losses} worse "
        f"(exact sign test, p = {paired.p_value:.2g})",
    )
    if run.forgetting is not None:
        style = "bold yellow" if run.forgetting.much else ""
        put(out, f"General prompts: {in_words(run.forgetting)}", style=style)
    if run.pseudo_labels is not None:
        put(out, f"Pseudo-labels: {'; '.join(run.pseudo_labels.lines())}")
    if run.preference is not None:
        put(out, preferred(run.preference))
    print_line(f"Weights: {run.weights}\nReport:  {run.report}")

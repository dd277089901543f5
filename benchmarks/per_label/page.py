"""The results as a page of tables and pictures, made from their file alone."""

import json
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from scipy.stats import norm
from scipy.stats import t as student

from benchmarks.per_label.chart import Line, svg
from benchmarks.per_label.systems import SYSTEMS
from benchmarks.per_label.tasks import TASKS, TEST_ROWS
from kilotune.data.files.writers import write_atomically
from kilotune.evaluation.evidence import CONFIDENCE, Figure, wilson
from kilotune.evaluation.task_metrics import TASKS as METRICS
from kilotune.evaluation.task_metrics import TITLES

NORMAL = norm.ppf((1 + CONFIDENCE) / 2)
# In so many of its cells a system's own interval should hold what the test says.
SHOULD_HOLD = 0.93
# Seconds are those of cells beside which other programs used less than so many cores.
QUIET = 0.25
HEAD = """# Which system gives the best model per label?

*Made by `python -m benchmarks.per_label --page` from `{parquet}`; do not edit.*

A system learns from N labelled rows and answers {test_rows} others. Of each label three rows come
first, the rest at random, by seed; a smaller N is part of a larger one, and every system of a seed
has the same rows. Figures are means over the seeds, with 95% intervals: the wider of what the rows
of the tests and what the differences between the seeds give (Student's t, so wide with three
seeds). Generated answers are judged as users get them. All language models are
SmolLM2-135M-Instruct; the encoder is all-MiniLM-L6-v2. Peers have their documented settings:
`benchmarks/per_label/peers`. {cells} cells are measured.
"""


@dataclass(frozen=True, slots=True)
class Key:
    """What is averaged over seeds."""

    task: str
    size: int
    system: str


Groups = dict[Key, list[dict]]


def write_page(rows: Sequence[dict], page: Path) -> list[Path]:
    """Write the page and a picture for each task beside it. Returns what was written."""
    groups = grouped(rows)
    tasks = [name for name in TASKS if any(key.task == name for key in groups)]
    written = []
    for task in tasks:
        picture = page.with_name(f"{page.stem}-{task}.svg")
        title = f"{TASKS[task].title}: {_title(task, 'graded')}"
        write_atomically(picture, svg(title, list(lines(groups, task))))
        written.append(picture)
    write_atomically(page, page_text(rows, page))
    return [page, *written]


def grouped(rows: Iterable[dict]) -> Groups:
    """The rows of each task, size and system, by seed."""
    found: Groups = defaultdict(list)
    for row in sorted(rows, key=lambda row: row["seed"]):
        found[Key(row["task"], row["size"], row["system"])].append(row)
    return dict(found)


def page_text(rows: Sequence[dict], page: Path) -> str:
    """The whole page."""
    groups = grouped(rows)
    parts = [HEAD.format(parquet=f"{page.stem}.parquet", test_rows=TEST_ROWS, cells=len(rows))]
    for held_out, title in ((False, "Tasks to develop on"), (True, "Held-out tasks")):
        tasks = list(dict.fromkeys(r["task"] for r in rows if r["held_out"] == held_out))
        tasks = [task for task in TASKS if task in tasks]
        if tasks:
            parts += [f"## {title}", best_table(groups, tasks)]
            parts += [task_part(groups, task, page.stem) for task in tasks]
    if rows:
        parts += ["## What it costs", cost_table(rows)]
        parts += ["## Whether what a system says of itself held", held_table(rows)]
        parts += ["## Measured on", measured_on(rows)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def task_part(groups: Groups, task: str, stem: str) -> str:
    """A task's picture and its two tables."""
    title, parts = TASKS[task].title, []
    for column in ("graded", "exact"):
        parts.append(f"{_title(task, column)}:\n\n{figure_table(groups, task, column)}")
    picture = f"![{title}]({stem}-{task}.svg)"
    return "\n\n".join([f"### {title[0].upper()}{title[1:]}", picture, *parts])


def over_seeds(values: Sequence[float], errors: Sequence[float]) -> Figure:
    """The mean over seeds, whose standard errors over rows are `errors`, with its interval.

    The wider of two: what the rows explain, and what the seeds show. Two or three seeds may agree
    by chance, so that the rows' part is the least.
    """
    count, mean = len(values), statistics.fmean(values)
    half = NORMAL * sum(error**2 for error in errors) ** 0.5 / count
    if count > 1:
        reach = student.ppf((1 + CONFIDENCE) / 2, count - 1)
        half = max(half, reach * statistics.stdev(values) / count**0.5)
    return Figure(mean, mean - half, mean + half)


def figure(rows: Sequence[dict], column: str) -> Figure:
    """A figure of one system over its seeds, within [0, 1]."""
    found = [row[column] for row in rows]
    errors = [(one["high"] - one["low"]) / 2 / NORMAL for one in found]
    mean = over_seeds([one["value"] for one in found], errors)
    return Figure(mean.value, max(0.0, mean.low), min(1.0, mean.high))


def gain(before: Sequence[dict], after: Sequence[dict]) -> Figure | None:
    """How much `after` scores above `before` on the same rows of the same seeds; None of none."""
    others = {row["seed"]: row["scores"] for row in before}
    values, errors = [], []
    for row in after:
        if row["seed"] in others:
            pairs = zip(row["scores"], others[row["seed"]], strict=True)
            gains = [own - other for own, other in pairs]
            values.append(statistics.fmean(gains))
            errors.append(statistics.stdev(gains) / len(gains) ** 0.5)
    return over_seeds(values, errors) if values else None


def best_table(groups: Groups, tasks: Sequence[str]) -> str:
    """Of each task and size the best system, and those that are not surely worse."""
    sizes = _sizes(groups, tasks)
    table = [["", *(f"{size} rows" for size in sizes)]]
    for task in tasks:
        table.append([TASKS[task].title, *(best_cell(groups, task, size) for size in sizes)])
    return (
        "The best by the task's graded figure, and in brackets those that are not surely worse "
        f"on the same rows:\n\n{_table(table)}"
    )


def best_cell(groups: Groups, task: str, size: int) -> str:
    """The best system of one task and size, and those as good."""
    here = {k.system: rows for k, rows in groups.items() if (k.task, k.size) == (task, size)}
    if not here:
        return ""
    means = {name: figure(rows, "graded").value for name, rows in here.items()}
    best = max(means, key=lambda name: means[name])
    alike = []
    for name in sorted(here, key=lambda name: -means[name]):
        ahead = gain(here[name], here[best]) if name != best else None
        if ahead is not None and ahead.low <= 0:
            alike.append(name)
    return f"**{best}** {means[best]:.3f}" + (f" ({', '.join(alike)})" if alike else "")


def figure_table(groups: Groups, task: str, column: str) -> str:
    """A line a system, a column a size."""
    sizes = _sizes(groups, [task])
    table = [["", *(f"{size} rows" for size in sizes)]]
    for name, system in SYSTEMS.items():
        found = [groups.get(Key(task, size, name)) for size in sizes]
        if any(found):
            cells = [_figure(figure(rows, column)) if rows else "" for rows in found]
            table.append([system.title, *cells])
    return _table(table)


def lines(groups: Groups, task: str) -> Iterable[Line]:
    """What the picture of a task shows: a line a system."""
    for name, system in SYSTEMS.items():
        keys = sorted(
            (k for k in groups if (k.task, k.system) == (task, name)), key=lambda k: k.size
        )
        if keys:
            points = [(key.size, figure(groups[key], "graded")) for key in keys]
            yield Line(system.title.replace("`", ""), list(SYSTEMS).index(name), points)


def cost_table(rows: Sequence[dict]) -> str:
    """Medians of seconds, and the largest peak of memory."""
    sizes = sorted({row["size"] for row in rows})
    table = [["", *(f"learn, {n} rows" for n in sizes), f"answer {TEST_ROWS}", "peak memory"]]
    for name, system in SYSTEMS.items():
        own = [row for row in rows if row["system"] == name]
        if not own:
            continue
        quiet = [row for row in own if (row["beside"] or 0.0) < QUIET]
        cells = []
        for size in sizes:
            seconds = [row["learn_seconds"] for row in quiet if row["size"] == size]
            cells.append(_seconds(seconds))
        answering = _seconds([row["answer_seconds"] for row in quiet])
        peak = max(row["peak_bytes"] for row in own) / 1e9
        table.append([system.title, *cells, answering, f"{peak:.2f} GB"])
    return (
        "Medians over tasks and seeds, of cells beside which nothing else ran. Learning is all "
        "that comes before the first answer, loading included; kilotune answers by `predict`, "
        "which loads anew. Memory is the largest resident set of the cell's own process, "
        f"libraries included.\n\n{_table(table)}"
    )


def held_table(rows: Sequence[dict]) -> str:
    """How often a system's own interval held its figure on the test, and how far it was off."""
    table = [["", "cells", "accuracy or exact match held", "graded figure held", "said too much"]]
    for name, system in SYSTEMS.items():
        own = [row for row in rows if row["system"] == name and row["reported_exact"]]
        if not own:
            continue
        off = statistics.fmean(r["reported_exact"]["value"] - r["exact"]["value"] for r in own)
        shares = [held_share(own, column) for column in ("exact", "graded")]
        table.append([system.title, str(len(own)), *shares, f"{100 * off:+.1f} points"])
    return (
        "Systems that say how good they are, with an interval, before they see the test: "
        "cross-validation, or kilotune's validation and folds. The interval should hold the "
        f"test's figure in at least {SHOULD_HOLD:.0%} of the cells; *said too much* is the mean of "
        "what was said above it. Where labels are uneven, three rows of each make a small training "
        f"set, and what is validated on it, unlike the test.\n\n{_table(table)}"
    )


def held_share(rows: Sequence[dict], column: str) -> str:
    """The share of rows whose reported interval holds the test's figure."""
    told = [row for row in rows if row[f"reported_{column}"]]
    if not told:
        return ""
    count = sum(
        row[f"reported_{column}"]["low"]
        <= row[column]["value"]
        <= row[f"reported_{column}"]["high"]
        for row in told
    )
    short = " **too few**" if count < SHOULD_HOLD * len(told) else ""
    return f"{_figure(wilson(count, len(told)))}{short}"


def measured_on(rows: Sequence[dict]) -> str:
    """Machines, dates and libraries."""
    known: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        for name, version in json.loads(row["versions"]).items():
            known[name].add(version)
    days = sorted(row["measured"] for row in rows)
    libraries = "; ".join(f"{name} {', '.join(sorted(known[name]))}" for name in sorted(known))
    places = "; ".join(sorted({row["where"] for row in rows}))
    return f"{places}. From {days[0]} to {days[-1]}. {libraries}."


def _title(task: str, column: str) -> str:
    metrics = METRICS[TASKS[task].kind]
    return TITLES[metrics.graded if column == "graded" else metrics.exact]


def _sizes(groups: Groups, tasks: Sequence[str]) -> list[int]:
    return sorted({key.size for key in groups if key.task in tasks})


def _figure(figure: Figure) -> str:
    return f"{figure.value:.3f} [{figure.low:.3f}, {figure.high:.3f}]"


def _seconds(found: Sequence[float]) -> str:
    return f"{statistics.median(found):.0f} s" if found else ""


def _table(rows: Sequence[Sequence[str]]) -> str:
    head, *body = (f"| {' | '.join(row)} |" for row in rows)
    return "\n".join([head, "|---" * len(rows[0]) + "|", *body])

"""A labelled file looked over before anything is done with it. Needs no model and no torch."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kilotune.data.checks import (
    check_examples,
    check_leakage,
    check_part,
    check_split,
)
from kilotune.data.checks.duplicates import components
from kilotune.data.checks.labels import RARE_CLASS
from kilotune.data.checks.lengths import CountTokens, Lengths, prompt_tokens, summary
from kilotune.data.column_plan import Reading
from kilotune.data.example import Example, Task
from kilotune.data.files.readers import read_table
from kilotune.data.finding import Finding, errors_first, finding
from kilotune.data.normalise import Dataset, load_dataset
from kilotune.data.repair import Repair, repair_file
from kilotune.data.split import split_examples
from kilotune.errors import KilotuneError, some
from kilotune.evaluation.baselines import out_of_fold
from kilotune.evaluation.label_errors import suspicious_labels
from kilotune.messages.sentences import phrase
from kilotune.preparation.prepare import read_parts
from kilotune.recipe.schema import DataSettings

# A stratified split leaves no part without a class that has so many examples, each on its own or
# with few others: what must stay together is less than this share of a part.
SAFE_CLASS, SAFE_SHARE = 30, 0.1
# So many rows of a finding are quoted, each by so many characters.
QUOTED_ROWS, QUOTED = 3, 60
# What ids begin with in the files beside the labelled one.
PARTS = ("validation", "test")


@dataclass(frozen=True, slots=True)
class Inspection:
    """What a labelled file is and what is wrong with it; `examples` counts them by part.

    `format` is what --format takes, `title` the same in words; `texts` are how the texts of the
    first rows of each finding begin.
    """

    files: tuple[Path, ...]
    format: str
    title: str
    unused: tuple[str, ...]
    task: Task
    examples: dict[str, int]
    classes: dict[str, int]
    prompt_tokens: Lengths | None
    findings: tuple[Finding, ...]
    texts: dict[str, str] = field(default_factory=dict)


def check(
    files: Sequence[str | Path],
    *,
    reading: Reading | None = None,
    validation: Path | None = None,
    test: Path | None = None,
    count_tokens: CountTokens | None = None,
    label_errors: bool = False,
    probabilities: Path | None = None,
) -> Inspection:
    """Read and check `files` as one training file, and the parts beside it.

    `reading` says how they are read (`data.normalise.Reading`); without it all is detected.
    `label_errors` looks for wrong labels with a bag of words, `probabilities` with a file of
    out-of-fold predictions. Raises KilotuneError for files that cannot be read.
    """
    paths, reading = [Path(file) for file in files], reading or Reading()
    datasets = [load_dataset(path, reading, source=name) for path, name in _named(paths)]
    tasks = sorted({dataset.task for dataset in datasets})
    if len(tasks) > 1:
        raise KilotuneError(
            f"the files set different tasks: {', '.join(tasks)}",
            where=some([str(path) for path in paths]),
            fix="Check them one by one, or name one with --task",
        )
    task = datasets[0].task
    if (label_errors or probabilities) and task != "classify":
        raise KilotuneError(
            f"wrong labels are looked for among closed labels, and the task is {task}",
            where=some([str(path) for path in paths]),
            fix="Leave --label-errors and --out-of-fold out, or say --task classify",
        )
    examples = [example for dataset in datasets for example in dataset.examples]
    if reading.split is not None and len(datasets) > 1:
        raise KilotuneError("--split is of one file", fix="Check the files one by one")
    parts = read_parts(datasets[0], reading, {"validation": validation, "test": test})
    found = [finding for dataset in datasets for finding in dataset.findings]
    if own := parts.pop("train", None):
        examples = list(own.examples)
    found += check_examples(examples, task, count_tokens=count_tokens)
    found += _of_parts(examples, parts, task)
    # Data with errors are not split.
    if all(finding.severity != "error" for finding in found):
        found += _of_split(examples, parts, task)
    if label_errors or probabilities:
        found += _of_labels(examples, probabilities)
    lengths = prompt_tokens(examples, count_tokens)
    return Inspection(
        files=tuple(paths),
        format=", ".join(dict.fromkeys(dataset.format for dataset in datasets)),
        title=", ".join(dict.fromkeys(dataset.title for dataset in datasets)),
        unused=tuple(dict.fromkeys(name for dataset in datasets for name in dataset.unused)),
        task=task,
        examples={"data": len(examples), **{n: len(part.examples) for n, part in parts.items()}},
        classes=dict(Counter(e.label for e in examples if e.label).most_common()),
        prompt_tokens=summary(lengths, estimated=count_tokens is None) if examples else None,
        findings=tuple(errors_first(found)),
        texts=_quoted(found, [*examples, *(e for part in parts.values() for e in part.examples)]),
    )


def _quoted(findings: Sequence[Finding], examples: Sequence[Example]) -> dict[str, str]:
    """How the texts of the first rows of each finding begin, by the row."""
    told = [finding for finding in findings if finding.code != "personal-data"]
    wanted = {row for finding in told for row in finding.rows[:QUOTED_ROWS]}
    quoted = {}
    for example in examples:
        if example.id in wanted and (text := " ".join(example.text.split())):
            quoted[example.id] = text if len(text) <= QUOTED else f"{text[: QUOTED - 1]}…"
    return quoted


def mend(files: Sequence[Path], reading: Reading, out: Path) -> list[Repair]:
    """Write a copy of the one file, all repaired that can be; see `repair_file`.

    Raises KilotuneError for several files, and over an existing one.
    """
    if len(files) != 1:
        raise KilotuneError("--fix repairs one file at a time", fix="Give one file")
    return repair_file(reading, files[0], out)


def _named(files: Sequence[Path]) -> list[tuple[Path, str]]:
    """Each file with what the ids of its examples begin with: `data`, or the file's own name.

    Where names are alike, or those of the parts beside them, the paths tell them apart.
    """
    if len(files) == 1:
        return [(files[0], "data")]
    counts = Counter(path.absolute() for path in files)
    if twice := [str(path) for path, count in counts.items() if count > 1]:
        raise KilotuneError("the same file twice", where=some(twice), fix="Give it once")
    names = [path.stem for path in files]
    if len({*names, *PARTS}) < len(names) + len(PARTS):
        # A name without an ending, of a folder, could still be `test`.
        names = [str(path if path.suffix else path.absolute()) for path in files]
    return list(zip(files, names, strict=True))


def _of_parts(
    examples: Sequence[Example], parts: Mapping[str, Dataset], task: Task
) -> list[Finding]:
    findings: list[Finding] = []
    for name, part in parts.items():
        findings += [*part.findings, *check_part(examples, part.examples, name, task)]
    if len(parts) == 2:
        findings += check_leakage(
            parts["validation"].examples, parts["test"].examples, "test", "validation"
        )
    return findings


def _of_split(
    examples: Sequence[Example], parts: Mapping[str, Dataset], task: Task
) -> list[Finding]:
    """What becomes of the examples, split as a recipe does that says nothing else."""
    taken = {name: part.examples for name, part in parts.items()}
    fractions = DataSettings(train=Path())
    classes = Counter(example.label for example in examples if example.label)
    rare = task == "classify" and min(classes.values(), default=0) < SAFE_CLASS
    part = min(fractions.validation_fraction, fractions.test_fraction) * len(examples)
    if not rare and max(Counter(components(examples)).values()) < SAFE_SHARE * part:
        return []
    try:
        split = split_examples(
            examples,
            validation=taken.get("validation"),
            test=taken.get("test"),
            validation_fraction=fractions.validation_fraction,
            test_fraction=fractions.test_fraction,
            seed=0,
        )
    except KilotuneError as error:  # too much must stay together
        return [finding("kept-together", severity="error", text=error.what, fix=error.fix)]
    return [*split.findings, *(check_split(split.named()) if task == "classify" else ())]


def _of_labels(examples: Sequence[Example], path: Path | None) -> list[Finding]:
    labelled = [example for example in examples if example.label and example.text]
    if path is None:
        # A model that has seen a class once or never finds every one of its labels wrong.
        counts = Counter(example.label for example in labelled)
        labelled = [e for e in labelled if counts[e.label] >= RARE_CLASS]
        rare = {label: n for label, n in counts.items() if n < RARE_CLASS}
        found = [_too_rare(rare)] if rare else []
        return [*found, *_by_words(labelled)]
    classes = sorted({str(example.label) for example in labelled})
    if len(classes) < 2:
        return []
    return suspicious_labels(labelled, classes, read_probabilities(path, labelled, classes))


def _by_words(labelled: Sequence[Example]) -> list[Finding]:
    """The labels that a bag of words contradicts, which has not seen their examples."""
    classes = sorted({str(example.label) for example in labelled})
    together = components(labelled) if labelled else []
    if len(classes) < 2 or len(set(together)) < 2:
        return []
    texts = [example.text for example in labelled]
    labels = [str(example.label) for example in labelled]
    return suspicious_labels(labelled, classes, out_of_fold(texts, labels, together, seed=0))


def _too_rare(counts: Mapping[str | None, int]) -> Finding:
    classes = [
        phrase("class", label=label, examples=count) for label, count in sorted(counts.items())
    ]
    return finding("rare-not-judged", least=RARE_CLASS, classes=classes)


def read_probabilities(
    path: Path, examples: Sequence[Example], classes: Sequence[str]
) -> NDArray[np.float64]:
    """Out-of-fold probabilities from a table with a column `id` (or `row`) and one a class.

    Of shape (examples, classes). Raises KilotuneError where a column, a row or a number is missing.
    """
    table = read_table(path)
    key = next((name for name in ("id", "row") if name in table.columns), None)
    lacking = [name for name in classes if name not in table.columns]
    if key is None or lacking:
        what = "column 'id' or 'row'" if key is None else f"columns for the labels {some(lacking)}"
        raise KilotuneError(
            f"no {what}; the columns are {some(list(table.columns), 20)}",
            where=str(path),
            fix="Write an id (data:2) or row (2) and one probability a label",
        )
    rows = {str(row.values.get(key)).strip(): row for row in table.rows}
    numbers = np.empty((len(examples), len(classes)))
    missing, bad = [], []
    for place, example in enumerate(examples):
        row = rows.get(example.id if key == "id" else str(example.origin.row))
        values = None if row is None else _probabilities(row.values, classes)
        if row is None:
            missing.append(example.id)
        elif values is None:
            bad.append(str(row.line))
        else:
            numbers[place] = values
    if missing or bad:
        what = f"no row for {some(missing)}" if missing else f"no probabilities on line {some(bad)}"
        raise KilotuneError(what, where=str(path), fix="Predict every labelled example once")
    return numbers


def _probabilities(values: Mapping[str, Any], classes: Sequence[str]) -> list[float] | None:
    """The row's number for each class, or None where one is no number from 0 to 1."""
    try:
        numbers = [float(values[name]) for name in classes]
    except (KeyError, TypeError, ValueError):
        return None
    return numbers if all(0 <= number <= 1 for number in numbers) else None

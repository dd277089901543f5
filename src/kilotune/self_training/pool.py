"""Texts without labels, read as the training file was, without those that are known already."""

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

from kilotune import distributed
from kilotune.data.example import Example
from kilotune.data.normalise import load_dataset, without_answer
from kilotune.errors import KilotuneError
from kilotune.evaluation.adoption import check_seeds
from kilotune.preparation.prepare import Prepared, reading_alike
from kilotune.progress import Progress
from kilotune.self_training.acceptance import without_known
from kilotune.self_training.guesses import altered

# Begins the ids of the file's rows.
SOURCE = "unlabeled"


@dataclass(frozen=True, slots=True)
class Pool:
    """The texts that are looked at, by id, and how many of the file's `total` are not, and why.

    `truths` are the answers that the file has: for the report, and never asked for a choice.
    """

    rows: Mapping[str, Example]
    truths: Mapping[str, str]
    left: Mapping[str, int]
    total: int


def open_pool(prepared: Prepared, progress: Progress) -> Pool | None:
    """The texts of the recipe's unlabelled file; None where it names none.

    Raises KilotuneError where the file cannot be read, or its texts cannot be labelled.
    """
    settings, where = prepared.recipe.unlabeled, "unlabeled"
    if settings.file is None:
        return None
    if prepared.task == "chat":
        raise KilotuneError(
            "conversations cannot be pseudo-labelled: there is no telling when two answers agree",
            where=where,
            fix="Leave --unlabeled out, or make the task generate (--task generate)",
        )
    if settings.labels == "soft" and prepared.task != "classify":
        raise KilotuneError(
            "soft labels are of closed labels alone",
            where=f"{where}.labels",
            fix="Set it to hard",
        )
    if distributed.count() > 1:
        raise KilotuneError(
            "pseudo-labels are made by one process",
            where=where,
            fix="Run it without torchrun, or leave --unlabeled out",
        )
    check_seeds(settings.seeds, f"{where}.seeds")
    if settings.consistency or settings.train_on == "altered":
        # What cannot be done is said before hours of tuning.
        few = [without_answer(example) for example in prepared.parts.train[:3]]
        altered(prepared.recipe, few, len(settings.operations), seed=prepared.recipe.seed)
    return read_pool(prepared, progress)


def read_pool(prepared: Prepared, progress: Progress) -> Pool:
    """The recipe's unlabelled file without what training, validation and test have.

    At most `unlabeled.pool` rows, drawn by the recipe's seed. Raises KilotuneError for a file that
    cannot be read, or of which nothing is left.
    """
    recipe, settings = prepared.recipe, prepared.recipe.unlabeled
    assert settings.file is not None
    alike = replace(reading_alike(recipe, prepared.format), task=prepared.task)
    dataset = load_dataset(settings.file, alike, source=SOURCE, answered=False)
    if dataset.table is not None and recipe.data.group in dataset.table.columns:
        grouped = replace(alike, group=recipe.data.group)
        dataset = load_dataset(settings.file, grouped, source=SOURCE, answered=False)
    for finding in dataset.findings:
        progress.say(f"{finding.severity}: {finding}")
    unread = {row for f in dataset.findings if f.severity == "error" for row in f.rows}
    usable = [e for e in dataset.examples if (e.text or e.images) and e.id not in unread]
    parts = {name: part for name, part in prepared.parts.named().items() if part}
    fresh, left = without_known([without_answer(e) for e in usable], parts)
    total = len({*unread, *(example.id for example in dataset.examples)})
    left = {"no text, or unreadable": total - len(usable), **left}
    drawn = random.Random(recipe.seed).sample(fresh, min(settings.pool, len(fresh)))
    left["beyond the pool"] = len(fresh) - len(drawn)
    chosen = {example.id for example in drawn}
    rows = {example.id: example for example in fresh if example.id in chosen}
    pool = Pool(rows, _truths(usable, chosen), dict(+Counter(left)), total)
    if not rows:
        raise KilotuneError(
            f"none of its {total} rows is new: {_words(pool.left)}",
            where=str(settings.file),
            fix="Give other texts with --unlabeled",
        )
    lost = f" ({_words(pool.left)})" if pool.left else ""
    progress.say(f"{len(rows)} of {total} unlabelled rows are looked at{lost}")
    return pool


def _truths(examples: list[Example], chosen: set[str]) -> dict[str, str]:
    known = ((e.id, e.label or e.answer) for e in examples if e.id in chosen)
    return {id: answer for id, answer in known if answer}


def _words(left: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {why}" for why, count in left.items())

"""Texts without labels, read as the training file was, without those that are known already."""

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

from kilotune.data.example import Example
from kilotune.data.normalise import load_dataset, without_answer
from kilotune.errors import KilotuneError
from kilotune.preparation.prepare import Prepared, reading_alike
from kilotune.progress import Progress
from kilotune.self_training.acceptance import without_known

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

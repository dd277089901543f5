"""A file's own parts: rows of which a column says train, validation or test."""

from collections.abc import Mapping
from dataclasses import replace

from kilotune.data.columns.joined import text_in
from kilotune.data.columns.profile import part_of
from kilotune.data.normalise import Dataset
from kilotune.errors import KilotuneError, some


def own_parts(dataset: Dataset, column: str) -> dict[str, Dataset]:
    """The rows of `dataset` by the part that its column `column` names.

    What reading it found stays with the rows to train on. Raises KilotuneError where a row names no
    part, and where none is to be trained on.
    """
    assert dataset.table is not None
    named = {row.id("data"): row.values.get(column) for row in dataset.table.rows}
    parts = {
        example.id: part_of(column, named.get(_row(example.id))) for example in dataset.examples
    }
    lost = [example.id for example in dataset.examples if parts[example.id] is None]
    if lost:
        said = {text_in(named.get(_row(name))) for name in lost}
        raise KilotuneError(
            f"'{column}' names no part in {some(lost)}, but {some(sorted(map(repr, said)))}",
            where=str(dataset.path),
            fix="Write train, validation or test there, or read other rows alone with --keep",
        )
    found: dict[str, Dataset] = {}
    for name in ("train", "validation", "test"):
        examples = tuple(example for example in dataset.examples if parts[example.id] == name)
        if examples:
            findings = dataset.findings if name == "train" else ()
            found[name] = replace(dataset, examples=examples, findings=findings)
    if "train" not in found:
        raise KilotuneError(
            f"'{column}' names no row for training", where=str(dataset.path), fix="Write train"
        )
    return found


def _row(name: str) -> str:
    """An example's id with the source that every table's rows can be asked by."""
    return f"data:{name.partition(':')[2]}"


def check_one_each(given: Mapping[str, object], own: Mapping[str, object], column: str) -> None:
    """Raise KilotuneError where a part is given as a file and named by the column too."""
    both = [name for name in own if given.get(name)]
    if both:
        raise KilotuneError(
            f"the {both[0]} part is given as a file, and '{column}' names one too",
            fix="Give one of the two",
        )

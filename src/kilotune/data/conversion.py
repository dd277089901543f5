"""Any file to any other: read into Examples, written in another format, read again as a proof."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from kilotune.data.cells import Cells
from kilotune.data.column_plan import Reading
from kilotune.data.example import Example, Image, Message, Part
from kilotune.data.files.claims import claimed
from kilotune.data.files.writers import check_writable, write_table
from kilotune.data.finding import stop_on_errors
from kilotune.data.formats import FORMATS, Format, detect
from kilotune.data.images.references import place, placeholders
from kilotune.data.normalise import Dataset, load_dataset
from kilotune.data.row_faults import RowError
from kilotune.data.turns import inline_images
from kilotune.errors import KilotuneError, some
from kilotune.progress import Progress, Silent

# What columns of groups and of weights are called in what is written.
GROUP, WEIGHT = "group", "weight"


@dataclass(frozen=True, slots=True)
class Conversion:
    """What was written: from which format into which, how many rows, and what stayed behind."""

    dataset: Dataset
    out: Path
    format: str
    rows: int
    left_behind: tuple[str, ...]


def convert(
    source: Path,
    out: Path,
    *,
    to: str = "auto",
    reading: Reading | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Conversion:
    """Write the examples of `source` to `out`, by its ending, in the format `to`.

    `auto` keeps text and label columns, and makes OpenAI messages of everything else. Paths of
    images become relative to `out`'s folder. Columns that no format knows stay behind, and are
    named in what is returned. Raises KilotuneError for rows that cannot be read, and for rows
    that the format cannot hold whole; then nothing is written.
    """
    progress, reading = progress or Silent(), reading or Reading()
    if to not in {"auto", *FORMATS}:
        raise KilotuneError(f"no format '{to}'", fix=f"Choose one of: {', '.join(FORMATS)}")
    with claimed(out, check=partial(_check_new, source, force)):
        progress.stage(f"Reading {source}")
        dataset = load_dataset(source, reading)
        progress.say(f"detected: {dataset.title}")
        for finding in dataset.findings:
            if finding.severity != "error":
                progress.say(f"{finding.severity}: {finding}")
        stop_on_errors(dataset.findings, str(source))
        name = to if to != "auto" else usual_format(dataset.format)
        progress.stage(f"Writing {out}")
        rows = rows_of(dataset.examples, name, out, progress, str(dataset.path))
        names = list(dict.fromkeys(column for row in rows for column in row))
        write_table(out, names, rows, force=force)
    left = tuple(column for column in dataset.unused if column not in {reading.group, "tools"})
    return Conversion(dataset, out, name, len(rows), left)


def _check_new(source: Path, force: bool, out: Path) -> None:
    if out.exists() and not force:
        raise KilotuneError(
            "the file exists and is left as it is",
            where=str(out),
            fix="Choose another name, or overwrite it with --force",
        )
    check_writable(out, force)
    if out.exists() and source.exists() and out.samefile(source):
        raise KilotuneError("this is the file to convert", where=str(out), fix="Name another file")


def usual_format(read: str) -> str:
    """The format to write what was read in another: text and label stay, all else is messages."""
    return "text-label" if read == "text-label" else "messages"


def rows_of(
    examples: Sequence[Example], name: str, out: Path, progress: Progress, where: str
) -> list[dict[str, Any]]:
    """The rows to write, each proved to be read back as its example, by whoever asks no format.

    Paths of images become relative to `out`'s folder. Raises KilotuneError about `where` for
    examples that the format `name` cannot hold whole.
    """
    examples = [example.with_images(partial(_beside, out.parent)) for example in examples]
    rows = FORMATS[name].write(examples)
    names = list(dict.fromkeys(column for row in rows for column in row))
    form = FORMATS[detect(names, rows, {}, answered=True) or name]
    columns = form.columns(names, {})
    lost: list[str] = []
    reasons: dict[str, None] = {}
    with progress.bar("comparing", len(rows)) as bar:
        for example, row in zip(examples, rows, strict=True):
            cells = Cells(row, columns, str(out.parent))
            if _bare(_read_back(cells, form)) != _bare(example.messages):
                lost.append(example.id)
                reasons[_reason(example)] = None
            bar.advance()
    if lost:
        raise KilotuneError(
            f"{FORMATS[name].title} cannot hold all of {len(lost)} rows "
            f"({', '.join(reasons)}): {some(lost)}",
            where=where,
            fix="Convert to messages, which holds everything: --to messages",
        )
    if any(example.group is not None for example in examples):
        rows = [{**row, GROUP: example.group} for row, example in zip(rows, examples, strict=True)]
    if any(example.weight != 1 for example in examples):
        pairs = zip(rows, examples, strict=True)
        rows = [{**row, WEIGHT: example.weight} for row, example in pairs]
    return rows


def _beside(folder: Path, image: Image) -> Image:
    """The image by its path as seen from `folder`."""
    if image.data is not None:
        return Image("", data=image.data)
    if Path(image.source).is_absolute():
        return replace(image, folder=str(folder))
    return Image(Path(os.path.relpath(image.path, folder)).as_posix(), str(folder))


def _read_back(cells: Cells, form: Format) -> Sequence[Message]:
    try:
        messages = form.read(cells)
        images = cells.images()
    except RowError:
        return ()
    counted = "images" in cells.columns and placeholders(messages) != len(images)
    return () if counted else place(messages, images)


def _bare(messages: Sequence[Message]) -> list[tuple[str, list[Part], bool]]:
    """Messages for comparison: spaces around a text are no part of it."""
    return [
        (m.role, [part.strip() if isinstance(part, str) else part for part in m.parts], m.trained)
        for m in messages
    ]


def _reason(example: Example) -> str:
    roles = [message.role for message in example.messages]
    if not all(message.trained for message in example.messages):
        return "answers that are not to be trained"
    if roles.count("assistant") > 1:
        return "several answers"
    if "system" in roles:
        return "a system message"
    if roles not in (["user"], ["user", "assistant"]):
        return f"the turns {', '.join(roles) or 'none'}"
    if example.images:
        return "images or the text '<image>'"
    if any(map(inline_images, (message.text for message in example.messages))):
        return "the text '<img>…</img>'"
    return "an empty or unusual text"

"""Where the images of a copied file are: paths from the copy's folder, bytes as files beside it."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from kilotune.data.example import Image
from kilotune.data.files.table import Row, ending
from kilotune.data.images.references import media_type, without_scheme
from kilotune.data.normalise import Dataset
from kilotune.data.tasks import is_json
from kilotune.data.turns import INLINE_IMAGE

# Files that hold bytes as they are.
WITH_BYTES = ".parquet"
# Under these names are texts, whatever they say.
TEXTS = ("text", "content", "value")


def image_folder(out: Path) -> Path:
    """Where the images go that stand in a file whose copy is `out`."""
    return out.with_name(f"{out.name}.images")


@dataclass(slots=True)
class Copy:
    """The images of a copy to be written to `out`.

    `files` are the bytes to write, by their path from `out`'s folder; `moved` has the row's id,
    the field, and what stood there before and after.
    """

    out: Path
    files: dict[str, bytes] = field(default_factory=dict)
    moved: list[tuple[str, str, str, str]] = field(default_factory=list)

    def rows(self, dataset: Dataset) -> list[Row]:
        """The rows of `dataset` with their images where they will be."""
        assert dataset.table is not None
        images = {example.id: example.images for example in dataset.examples}
        rows = []
        for row in dataset.table.rows:
            paths = {i.source: new for i in images.get(row.id("data"), ()) if (new := self._new(i))}
            kept = dataset.answers.union(dataset.unused)
            values = {
                name: value if name in kept else self._value(value, paths, row.id("data"), name)
                for name, value in row.values.items()
            }
            rows.append(replace(row, values=values))
        return rows

    def _new(self, image: Image) -> str | None:
        """The path of an image from `out`'s folder; None where it leads there already."""
        here = os.path.abspath(self.out.parent)
        if image.data is not None or os.path.abspath(image.folder) == here:
            return None
        if Path(image.source).is_absolute():
            return None
        return Path(os.path.relpath(os.path.abspath(image.path), here)).as_posix()

    def _value(self, value: Any, paths: Mapping[str, str], row: str, name: str) -> Any:
        if isinstance(value, str):
            after = _moved(value, paths, text=name.rpartition(".")[2] in TEXTS and "." in name)
            if after != value:
                self.moved.append((row, name, value, after))
            return after
        inside = value.get("bytes") if isinstance(value, dict) else value
        if isinstance(inside, bytes) and ending(self.out) != WITH_BYTES:
            after = self._file(inside)
            self.moved.append((row, name, f"{len(inside):,} bytes", after))
            return after
        if isinstance(value, dict):
            return {k: self._value(v, paths, row, f"{name}.{k}") for k, v in value.items()}
        if isinstance(value, list):
            return [self._value(v, paths, row, f"{name}.{i}") for i, v in enumerate(value)]
        return value

    def _file(self, raw: bytes) -> str:
        """The path under which an image's bytes will be."""
        kind = (media_type(raw) or "image/bin").partition("/")[2]
        name = f"{image_folder(self.out).name}/{hashlib.sha256(raw).hexdigest()[:16]}.{kind}"
        self.files[name] = raw
        return name


def _moved(value: str, paths: Mapping[str, str], *, text: bool = False) -> str:
    """A path, a text with paths in it, or JSON with either, with the new paths."""
    if not paths:
        return value
    if is_json(value):
        before = json.loads(value)
        after = _moved_inside(before, paths)
        return value if after == before else json.dumps(after, ensure_ascii=False)
    if text or "<img>" in value:
        return INLINE_IMAGE.sub(lambda found: f"<img>{_moved(found[1], paths)}</img>", value)
    return paths.get(without_scheme(value.strip()), value)


def _moved_inside(value: Any, paths: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return _moved(value, paths)
    if isinstance(value, dict):
        return {
            name: _moved(v, paths, text=True)
            if name in TEXTS and isinstance(v, str)
            else _moved_inside(v, paths)
            for name, v in value.items()
        }
    return [_moved_inside(item, paths) for item in value] if isinstance(value, list) else value

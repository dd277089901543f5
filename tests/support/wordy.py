"""Rows of words drawn at random, for tests of what columns there are and not of what they say."""

import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

WORDS = (
    "anvil", "birch", "cedar", "delta", "ember", "fjord", "glade", "heron", "inlet", "jetty",
    "knoll", "larch", "moss", "north", "otter", "pier", "quartz", "ridge", "spruce", "tern",
    "upland", "vale", "willow", "yarrow", "zephyr",
)  # fmt: skip


def words(row: int, count: int = 8, of: str = "") -> str:
    """The same words for the same row and name, others for any other."""
    return " ".join(Random(f"{of} {row}").choices(WORDS, k=count))


def write_rows(path: Path, row: Callable[[int], dict[str, Any]], count: int = 40) -> Path:
    """JSON Lines of `row` of each number."""
    path.write_text("".join(json.dumps(row(n)) + "\n" for n in range(count)), encoding="utf-8")
    return path

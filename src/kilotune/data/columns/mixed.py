"""Columns that are read, and hold what a reader may not expect: several types, points in time."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from kilotune.data.columns.profile import NEARLY, profile
from kilotune.data.files.table import Row
from kilotune.data.finding import Finding, finding
from kilotune.data.turns import kind_of
from kilotune.messages.sentences import phrase

TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d)?(?:\.\d+)?(?:Z|[+-]\d\d:?\d\d)?")


def timestamps(columns: Iterable[str], rows: Sequence[Row]) -> list[Finding]:
    """A note on the `columns` that hold points in time, which are read as they are written."""
    found = [name for name in columns if profile(name, rows).share(TIME) >= NEARLY]
    return [finding("timestamps", columns=found)] if found else []


def mixed_labels(column: str, rows: Sequence[Row]) -> list[Finding]:
    """A warning on labels of several types, which are often one label written in two ways."""
    kinds: Counter[str] = Counter()
    shown: dict[str, Any] = {}
    for row in rows:
        value = row.values.get(column)
        if value is not None and value == value and value != "" and not isinstance(value, list):
            kinds[kind_of(value)] += 1
            shown.setdefault(kind_of(value), value)
    if len(kinds) < 2:
        return []
    said = [
        phrase("kind-of-label", kind=kind, rows=count, example=str(shown[kind])[:40])
        for kind, count in kinds.most_common()
    ]
    return [finding("mixed-labels", column=column, kinds=said)]

"""The runs in a folder, each as one line: what they were, what came of them, what they cost.

Of the held-out test nothing is listed: whoever lists runs is about to choose among them.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kilotune.errors import KilotuneError
from kilotune.recipe.difference import flat_settings
from kilotune.runs import record
from kilotune.runs.documents import DataDocument, EnvironmentDocument
from kilotune.runs.outcomes import AblationDocument, JudgementDocument, VerdictDocument
from kilotune.runs.query import Condition, Value
from kilotune.runs.record import RunFolder

# Two of these make a folder a run: a recipe may lie anywhere.
TELLING = (record.RECIPE, record.DATA, record.VERDICT)


@dataclass(frozen=True, slots=True)
class RunEntry:
    """One run: its folder, and by name everything that can be listed, filtered and sorted by.

    Settings have their full names (`tune.rank`), validation figures `val.` before theirs.
    """

    folder: Path
    fields: dict[str, Value]


def find_runs(places: Iterable[Path]) -> list[RunEntry]:
    """The runs at `places`, each a run or a folder with runs in it; oldest first.

    Raises KilotuneError for a place that does not exist, or that has no run.
    """
    entries = []
    for place in places:
        if not place.is_dir():
            raise KilotuneError(
                "no such folder", where=str(place), fix="Give a run, or a folder of runs"
            )
        found = [_entry(path) for path in _run_folders(place)]
        if not found:
            raise KilotuneError("no run there", where=str(place), fix="Make one: kilotune run DATA")
        entries += found
    return sorted(entries, key=lambda entry: (str(entry.fields["started"]), str(entry.folder)))


def select(
    entries: Sequence[RunEntry], where: Condition | None, sort: str | None = None
) -> list[RunEntry]:
    """Those that `where` holds for; by the field `sort`, the greatest first, with `-` the least.

    Raises KilotuneError for a field that none of the runs has.
    """
    known = {name for entry in entries for name in entry.fields}
    kept = list(entries)
    if where is not None:
        where.check_fields(known)
        kept = [entry for entry in kept if where.test(entry.fields)]
    if sort is None:
        return kept
    name = sort.removeprefix("-")
    Condition(lambda run: True, (name,)).check_fields(known)
    having = [entry for entry in kept if entry.fields.get(name) is not None]
    ordered = sorted(having, key=lambda e: _sortable(e.fields[name]), reverse=sort == name)
    return ordered + [entry for entry in kept if entry.fields.get(name) is None]


def _sortable(value: Value) -> tuple[bool, float, str]:
    number = isinstance(value, int | float)
    return not number, float(value) if isinstance(value, int | float) else 0.0, str(value)


def _run_folders(place: Path) -> Iterator[Path]:
    """Runs by what is on record; of an ablation the final one."""
    if RunFolder(place).ablation:
        if (place / record.FINAL / record.RECIPE).is_file():
            yield place / record.FINAL
        return
    # One that lost a record is still a run, and is listed.
    if sum((place / name).is_file() for name in TELLING) > 1:
        yield place
        return
    for path in sorted(place.iterdir()):
        if path.is_dir() and not path.is_symlink():
            yield from _run_folders(path)


def _entry(path: Path) -> RunEntry:
    """The run in `path`, if only its name where it is damaged or of another version."""
    fields: dict[str, Value] = {"name": path.name, "state": "unreadable", "started": None}
    try:
        return RunEntry(path, fields | _fields(RunFolder(path)))
    except (KilotuneError, OSError):
        return RunEntry(path, fields)


def _fields(folder: RunFolder) -> dict[str, Value]:
    data = folder.read(DataDocument)
    fields: dict[str, Value] = {"state": "unfinished"}
    if environment := folder.read_if_there(EnvironmentDocument):
        fields |= _environment(environment)
    if folder.judged:
        state = "finished" if folder.finished else "without a report"
        fields |= {"state": state, "verdict": folder.read(VerdictDocument).verdict.name}
        fields |= validation_figures(folder)
    whole = RunFolder(folder.path.parent)
    if whole.ablation and (found := whole.read_if_there(AblationDocument)):
        fields["out_of_fold"] = found.out_of_fold.value if found.out_of_fold else None
    fields |= {"task": data.task, "data.fingerprint": data.fingerprint}
    fields |= {f"examples.{part}": len(ids) for part, ids in data.split}
    settings = flat_settings(folder.read_recipe(runs=()))
    return fields | {name: _plain(value) for name, value in settings.items()}


def validation_figures(folder: RunFolder) -> dict[str, Value]:
    """What the tuned model came to on validation, as `val.accuracy`."""
    systems = folder.read(JudgementDocument).validation
    tuned = next((system for system in systems if system.name == "tuned"), None)
    figures = tuned.figures if tuned else {}
    return {f"val.{name}": figure.value for name, figure in figures.items()}


def _environment(environment: EnvironmentDocument) -> dict[str, Value]:
    seconds = environment.seconds.values()  # none yet of an unfinished run
    return {
        "started": environment.started,
        "code": environment.code,
        "seconds": round(sum(seconds), 1) if seconds else None,
        **{f"tokens.{name}": count for name, count in environment.tokens.items()},
    }


def _plain(value: Any) -> Value:
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)

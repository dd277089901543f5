"""Whether what a struck command came to in the end is what it comes to undisturbed."""

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

# Ids that plotly draws for its charts.
UUID = re.compile(rb"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
DAY = re.compile(rb"\b20\d\d-\d\d-\d\d\b")
MANY = 3
TIMES = ("runtime", "per_second")
# Neither equal nor left over: which of them are kept depends on where a run was stopped.
FREE = re.compile(
    r"(?:checkpoints|refit)/checkpoint-\d+(/|$)|cache/activations/.+/[0-9a-f]+\.safetensors$"
)
LEFT_OVER = re.compile(r"\.part$|\.tmp|^\.|/\.|\.lock\.")


def differences(expected: Path, found: Path) -> list[str]:
    """What differs between the folders that two cases left: names, then contents."""
    names = [_names(expected), _names(found)]
    said = _few(f"missing: {name}" for name in sorted(names[0] - names[1]))
    said += [f"left over: {name}" for name in sorted(names[1] - names[0])]
    said += [f"left over: {name}" for name in _checkpoint_remains(found)]
    for name in sorted(names[0] & names[1]):
        if (expected / name).is_file():
            said += _few(f"{name}: {line}" for line in _compared(expected / name, found / name))
    return said


def _few(lines: Iterable[str]) -> list[str]:
    every = list(lines)
    return every if len(every) <= MANY else [*every[:MANY], f"and {len(every) - MANY} more like it"]


def _names(root: Path) -> set[str]:
    every = (path.relative_to(root).as_posix() for path in root.rglob("*"))
    return {name for name in every if not FREE.search(name)}


def _checkpoint_remains(root: Path) -> list[str]:
    inside = (path.relative_to(root).as_posix() for path in root.rglob("*"))
    return sorted(name for name in inside if FREE.search(name) and LEFT_OVER.search(name))


def _compared(expected: Path, found: Path) -> Iterable[str]:
    compare = COMPARED.get(expected.name) or BY_ENDING.get(expected.suffix, _bytes)
    try:
        return list(compare(expected, found))
    except (ValueError, KeyError, OSError) as error:
        return [f"cannot be read: {error!r}"]


def _bytes(expected: Path, found: Path) -> Iterable[str]:
    if _plain(expected) != _plain(found):
        yield "other bytes"


def _plain(path: Path) -> bytes:
    """The content, the folder of the case and the day taken out of it: cards say when a run was."""
    case = next(p for p in path.parents if (p / "work").is_dir())
    return DAY.sub(b"DAY", path.read_bytes().replace(str(case).encode(), b"CASE"))


def _page(expected: Path, found: Path) -> Iterable[str]:
    """A report tells seconds: of the same records it is the same but for the charts' ids."""
    pages = [UUID.sub(b"", _plain(path)) for path in (expected, found)]
    if not pages[1].rstrip().endswith(b"</html>"):
        yield "not whole"
    times = [path.with_name("environment.json").read_bytes() for path in (expected, found)]
    if times[0] == times[1] and pages[0] != pages[1]:
        yield "another page"


def _rows(expected: Path, found: Path) -> Iterable[str]:
    if pq.read_table(expected).to_pylist() != pq.read_table(found).to_pylist():
        yield "other rows"


def _judgement(expected: Path, found: Path) -> Iterable[str]:
    trees = [json.loads(path.read_text()) for path in (expected, found)]
    for tree in trees:
        for training in ("tuning", "refit"):  # the others were there
            (tree.get(training) or {}).get("cache", {}).pop("computed", None)
    yield from _differing(*trees)


def _metrics(expected: Path, found: Path) -> Iterable[str]:
    steps = [_by_step(path) for path in (expected, found)]
    yield from _differing(*steps)


def _by_step(path: Path) -> dict[str, Any]:
    """The log's lines; a step logged twice counts as it was last."""
    lines = map(json.loads, path.read_text().splitlines())
    return {f"{line['step']}, {_kind(line)}": _without_speeds(line) for line in lines}


def _kind(line: dict[str, Any]) -> str:
    return next((name for name in ("eval_loss", "loss") if name in line), "end")


def _without_speeds(line: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in line.items() if not key.endswith(TIMES)}


def _environment(expected: Path, found: Path) -> Iterable[str]:
    """Tokens are the same however often a run was stopped; seconds are of the same stages."""
    trees = [json.loads(path.read_text()) for path in (expected, found)]
    seconds = [tree.pop("seconds") for tree in trees]
    for tree in trees:
        tree.pop("started")
    yield from _differing(*trees)
    if set(seconds[0]) != set(seconds[1]):
        yield f"seconds of {sorted(seconds[1])}, not {sorted(seconds[0])}"


def _trial(expected: Path, found: Path) -> Iterable[str]:
    trees = [_without_times(json.loads(path.read_text())) for path in (expected, found)]
    yield from _differing(*trees)


def _without_times(tree: Any) -> Any:
    if isinstance(tree, list):
        return [_without_times(item) for item in tree]
    if not isinstance(tree, dict):
        return tree
    return {k: _without_times(v) for k, v in tree.items() if k not in ("seconds", "overhead")}


def _json(expected: Path, found: Path) -> Iterable[str]:
    if "trials" in found.parts or found.name == "ablation.json":
        yield from _trial(expected, found)
    elif list(_bytes(expected, found)):
        trees = [json.loads(_plain(path)) for path in (expected, found)]
        yield from list(_differing(*trees)) or ["the same, in another order"]


def _differing(expected: Any, found: Any, where: str = "") -> Iterable[str]:
    """Where two trees differ, as lines."""
    if not (isinstance(expected, dict) and isinstance(found, dict)):
        if expected != found:
            yield f"{where.lstrip('.')} {found!r:.80}, not {expected!r:.80}"
        return
    for key in dict.fromkeys([*expected, *found]):
        yield from _differing(expected.get(key), found.get(key), f"{where}.{key}")


Compare = Callable[[Path, Path], Iterable[str]]
COMPARED: dict[str, Compare] = {
    "report.html": _page,
    "judgement.json": _judgement,
    "metrics.jsonl": _metrics,
    "environment.json": _environment,
}
BY_ENDING: dict[str, Compare] = {".parquet": _rows, ".json": _json}

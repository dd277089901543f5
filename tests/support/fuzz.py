"""`make fuzz`: `kilotune check` on mutated files must say what is wrong, never fall over.

Starts from the corpus of clean, faulty and broken files and breaks them further: bytes, lines and,
where a file still reads as JSON, values. A crash, a traceback or an exit status that is none of
ours is printed with the seed that makes it again; that is enough to look at it.
"""

import argparse
import json
import random
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from kilotune.cli.main import app
from tests.data.corpus import Case, broken, clean, faulty

STRANGE = (
    None, True, -1, 1e400, 10**400, "", " ", "\u0000", "\ud800", "\ufffd", "<image>", "[]", "{}",
    [], {}, [[]], [None], {"a": {"b": [1]}}, "x" * 5000, "字" * 50, "system", "<|im_end|>",
)  # fmt: skip
TOKENS = (
    b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b'"', b"'", b",", b"\t", b"\n", b"\r", b"{", b"}", b"[",
    b"]", b":", b"null", b"NaN", b"\\u", b"\\ud800", b"-", b"1e999", b"\x1f\x8b", b"PK\x03\x04",
)  # fmt: skip
OURS = {0, 1, 2}


def flip(raw: bytearray, rng: random.Random) -> None:
    raw[rng.randrange(len(raw))] = rng.randrange(256)


def insert(raw: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(raw) + 1)
    raw[at:at] = rng.choice(TOKENS)


def cut(raw: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(raw))
    del raw[at : at + rng.choice((1, 3, 20, 1000, len(raw)))]


def repeat(raw: bytearray, rng: random.Random) -> None:
    at, length = rng.randrange(len(raw)), rng.choice((2, 30, 400))
    raw[at:at] = raw[at : at + length]


def swap_lines(raw: bytearray, rng: random.Random) -> None:
    lines = bytes(raw).split(b"\n")
    i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
    lines[i], lines[j] = lines[j], lines[i]
    raw[:] = b"\n".join(lines)


BYTES: tuple[Callable[[bytearray, random.Random], None], ...] = (
    flip, insert, cut, repeat, swap_lines,
)  # fmt: skip


def mutate(case: Case, rng: random.Random) -> bytes:
    """One to eight faults in the bytes or, half the time where that goes, in the values."""
    if case.file.endswith((".json", ".jsonl")) and rng.random() < 0.5:
        with suppress(json.JSONDecodeError):  # some of the faulty files are no JSON
            return mutate_values(case, rng)
    raw = bytearray(case.content)
    for _ in range(rng.randint(1, 8)):
        if raw:
            rng.choice(BYTES)(raw, rng)
    return bytes(raw)


def mutate_values(case: Case, rng: random.Random) -> bytes:
    text = case.content.decode()
    lines = case.file.endswith(".jsonl")
    value = [json.loads(line) for line in text.splitlines()] if lines else json.loads(text)
    for _ in range(rng.randint(1, 4)):
        place = rng.choice(list(containers(value)))
        key = rng.choice(list(place)) if isinstance(place, dict) else rng.randrange(len(place))
        if rng.random() < 0.2:
            del place[key]
        else:
            place[key] = deepcopy(rng.choice(STRANGE))
    if lines:
        return "\n".join(map(json.dumps, value)).encode()
    return json.dumps(value).encode()


def containers(value: Any) -> list[Any]:
    """Every list and object in `value` that has something in it."""
    found = [value] if isinstance(value, dict | list) and value else []
    items = value.values() if isinstance(value, dict) else value if found else ()
    return found + [inner for item in items for inner in containers(item)]


def fault(path: Path) -> str | None:
    """What went wrong in `check` on `path`, if anything did."""
    result = CliRunner().invoke(app, ["check", str(path), "--json"])
    error = result.exception
    if error is not None and not isinstance(error, SystemExit):
        return "".join(traceback.format_exception(error)[-3:])[-1000:]
    if result.exit_code not in OURS:
        return f"exit status {result.exit_code}: {result.output}"
    return None


def main() -> None:
    """Mutate and check until the time is over."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    cases = [case for case in (*clean(), *faulty(), *broken()) if case.content]
    started, seed, statuses, failures = time.monotonic(), options.seed, Counter[str](), 0
    with tempfile.TemporaryDirectory() as scratch:
        while time.monotonic() - started < options.seconds:
            rng = random.Random(seed)
            case = rng.choice(cases)
            folder = Path(scratch) / case.file
            path = case.write(folder)
            path.write_bytes(mutate(case, rng))
            problem = fault(path)
            statuses[case.file.partition(".")[2]] += 1
            if problem:
                failures += 1
                print(f"seed {seed}, {case.file}:\n{problem}", file=sys.stderr)
            seed += 1
    total = statuses.total()
    print(f"{total} mutated files, {failures} failures: {dict(statuses)}")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()

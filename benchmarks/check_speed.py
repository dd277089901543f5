"""How fast `kilotune check` is on a large file, and whether it finds what was planted there.

    taskset -c 0 /usr/bin/time -v python benchmarks/check_speed.py --rows 100000

Writes a CSV of texts of about 60 words, drawn by Zipf's law, with some rows repeated, repeated with
three words exchanged, and repeated under another label; checks it; prints seconds, peak memory and
how many of the planted rows were found.
"""

import argparse
import csv
import resource
import tempfile
import time
from itertools import accumulate
from pathlib import Path
from random import Random

from kilotune.preparation.inspection import Reading, check

WORDS = 50_000
SYLLABLES = [
    "ba",
    "be",
    "bi",
    "bo",
    "bu",
    "da",
    "de",
    "di",
    "do",
    "du",
    "ka",
    "ke",
    "ki",
    "ko",
    "ku",
    "la",
    "le",
    "li",
    "lo",
    "lu",
    "ma",
    "me",
    "mi",
    "mo",
    "mu",
]
PLANTED = {"duplicate": "repeated", "near-duplicate": "altered", "conflicting-labels": "relabelled"}
EXCHANGED = 3


def vocabulary(rng: Random) -> list[str]:
    """Different words of two to five syllables."""
    words: dict[str, None] = {}
    while len(words) < WORDS:
        words["".join(rng.choices(SYLLABLES, k=rng.randint(2, 5)))] = None
    return list(words)


def write_file(path: Path, rows: int, rng: Random) -> dict[str, set[str]]:
    """Write the CSV; the planted rows' ids by the finding that should name them."""
    words = vocabulary(rng)
    weights = list(accumulate(1 / (rank + 1) for rank in range(WORDS)))
    texts = [rng.choices(words, cum_weights=weights, k=rng.randint(40, 80)) for _ in range(rows)]
    labels = [rng.choice(("one", "two", "three")) for _ in range(rows)]
    each = rows // 100
    copies = iter(rng.sample(range(rows // 2, rows), 3 * each))
    originals = iter(rng.sample(range(rows // 2), 3 * each))
    planted: dict[str, set[str]] = {code: set() for code in PLANTED}
    for code, found in planted.items():
        for _ in range(each):
            copy, original = next(copies), next(originals)
            texts[copy], labels[copy] = list(texts[original]), labels[original]
            if code == "near-duplicate":
                for place in rng.sample(range(len(texts[copy])), EXCHANGED):
                    texts[copy][place] = rng.choice(words)
            if code == "conflicting-labels":
                labels[copy] = "two" if labels[original] == "one" else "one"
            found.add(f"data:{copy + 2}")
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("text", "label"))
        writer.writerows((" ".join(text), label) for text, label in zip(texts, labels, strict=True))
    return planted


def main() -> None:
    """Make the file, check it, print what it took."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.csv"
        planted = write_file(path, arguments.rows, Random(arguments.seed))
        print(f"{arguments.rows} rows, {path.stat().st_size / 1e6:.0f} MB")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        start = time.perf_counter()
        inspection = check([path], reading=Reading(text="text", label="label"))
        seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"{seconds:.1f} s, peak {peak / 1024:.0f} MB ({before / 1024:.0f} MB before)")
    for code, ids in planted.items():
        named = {row for f in inspection.findings if f.code == code for row in f.rows}
        print(f"{code}: {len(named & ids)} of {len(ids)} {PLANTED[code]} rows; {len(named)} named")
    print("findings:", ", ".join(sorted({finding.code for finding in inspection.findings})))


if __name__ == "__main__":
    main()

"""Examples a second of the operations that need no model, on one core.

    python benchmarks/augment_speed.py

Film-review sentences (`kilotune sample movie-reviews`) and, with --chinese FILE (a line a text),
Chinese ones. Dictionaries are loaded beforehand; each operation's best of three is printed, with
and without the filters.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from kilotune.augmentation.filters import Judges, filtered
from kilotune.augmentation.operation import Draw, rng_of, stamped
from kilotune.augmentation.policy import Tools, operation
from kilotune.data.example import Example, Message, Origin
from kilotune.data.samples import movie_reviews
from kilotune.recipe.schema import AugmentSettings, FilterSettings, OperationSettings

NAMES = ("synonym", "insert", "delete", "swap")


def examples(texts: Sequence[str]) -> list[Example]:
    """Texts as labelled examples."""
    return [
        Example(f"data:{i}", (Message("user", text),), Origin("a.csv", i), "x")
        for i, text in enumerate(texts, 2)
    ]


def best(work: Callable[[], object], repeats: int = 3) -> float:
    """The fastest of some runs, in seconds of this process."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


def measure(title: str, texts: Sequence[str]) -> None:
    """Print the rate of each operation, and of the filters, on `texts`."""
    train = examples(texts)
    signs = sum(map(len, texts)) / len(texts)
    print(f"{title}: {len(train)} texts of {signs:.0f} characters")
    for name in NAMES:
        how = OperationSettings(op=name)
        bulk = operation(Tools(AugmentSettings(operations=(how,)), train), how)
        draws = [Draw(example, rng_of(0, name, example.id)) for example in train]
        bulk(draws)  # dictionaries are read, and words met once looked up
        seconds = best(lambda bulk=bulk, draws=draws: bulk(draws))
        made = [e for d, m in zip(draws, bulk(draws), strict=True)
                for e in stamped(d.example, name, m, 1)]  # fmt: skip
        taking = best(lambda made=made: filtered(made, train, [], FilterSettings(), Judges()), 1)
        print(
            f"  {name:8} {len(train) / seconds:9,.0f} a second; filters {len(made) / taking:,.0f}"
        )


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--chinese", type=Path)
    chosen = parser.parse_args()
    measure("English", [text for text, _ in movie_reviews()[: chosen.count]])
    if chosen.chinese:
        lines = dict.fromkeys(chosen.chinese.read_text(encoding="utf-8").splitlines())
        measure("Chinese", [line for line in lines if line.strip()][: chosen.count])


if __name__ == "__main__":
    main()

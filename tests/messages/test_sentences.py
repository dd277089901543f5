"""Sentences out of codes and values, and a catalogue that says each of them."""

import math
import re
from string import Formatter

import pytest

from kilotune.data.finding import SEVERITIES, finding
from kilotune.evaluation.verdict import Verdict
from kilotune.messages import sentences
from kilotune.messages.sentences import fill, kinds, phrase, say


def test_a_value_may_be_a_number_a_text_a_phrase_a_list_or_no_number() -> None:
    assert fill("{share:.0%} of {name}", {"share": 0.125, "name": "{x}"}) == "12% of {x}"
    inner = phrase("both", one=phrase("labels"), other=phrase("answers"))
    assert fill("no {inner}", {"inner": inner}) == "no labels and answers"
    rows = [phrase("row-why", row=f"data:{n}", why=n) for n in range(7)]
    assert fill("{rows}", {"rows": rows}).endswith("data:4 (4) and 2 more")
    assert phrase("loss-spiked", steps=math.inf) == {"phrase": "loss-spiked", "steps": None}
    assert say(phrase("gradients-grew", times=math.nan)) == ", its gradients grew to nan times " + (
        "their size"
    )


@pytest.mark.parametrize(
    "said",
    [{"phrase": "of tomorrow"}, {}, {"phrase": "row-why", "row": 1}, {"phrase": "interval"}],
)
def test_what_cannot_be_said_raises(said: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"^no phrase|^'.*' lacks a value"):
        say(said)


def test_a_finding_counts_and_names_its_rows_and_says_its_detail() -> None:
    rows = [f"data:{n}" for n in range(1, 8)]
    shown = "data:1, data:2, data:3, data:4, data:5 and 2 more"
    assert finding("empty-text", rows).message == f"rows without text (7): {shown}"
    assert finding("truncated", rows[:1], "9 tokens").message.endswith(": 9 tokens (1): data:1")
    assert finding("pad-is-stop").message == kinds()["pad-is-stop"].what
    assert finding("leakage", ["t:1"], part="test", source="training").fix.endswith(
        "or the test figures flatter the model"
    )
    assert finding("too-long", text="As it is", fix="Do so").message == "As it is"


def test_every_sentence_can_be_made() -> None:
    """Each names its values by plain names, without places, calls or attributes."""
    catalogue = sentences._catalogue()
    texts = [*catalogue["phrases"].values()]
    for code, kind in kinds().items():
        assert re.fullmatch("[a-z0-9]+(-[a-z0-9]+)*", code)
        assert kind.severity in SEVERITIES
        assert not kind.fix.endswith(".")
        texts += [kind.what, kind.fix]
    for text in texts:
        for _, name, _, _ in Formatter().parse(text):
            assert name is None or name.isidentifier(), text


def test_every_verdict_has_a_sentence_of_its_name() -> None:
    names = Verdict.__annotations__["name"].__args__
    assert set(names) - set(sentences._catalogue()["phrases"]) == {"unvalidated"}

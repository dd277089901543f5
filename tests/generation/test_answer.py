"""What cannot be put to a model is named, all of it together, before anything is generated."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GenerationConfig

from kilotune.data.example import Example
from kilotune.data.samples import movie_reviews
from kilotune.errors import KilotuneError
from kilotune.generation import answer
from kilotune.generation.answer import TRIED, Prompting
from kilotune.generation.decoding import Generation
from kilotune.models.source import source_at
from kilotune.progress import Silent
from kilotune.rendering.probe import chat_template
from kilotune.rendering.wording import Wording, wording
from tests.generation.test_score import Said as Told
from tests.support.made import classified, conversation
from tests.support.tiny import CHATML, byte_tokenizer

REVIEWS = ("negative", "positive")
REFUSING = "{% if 'no' in messages[-1]['content'] %}{{ raise_exception('not this') }}{% endif %}"


def test_every_example_that_cannot_be_asked_is_named() -> None:
    template = chat_template(byte_tokenizer(REFUSING + CHATML))
    prompting = Prompting(template, Wording("", "{text}"), GenerationConfig(), 60, 0)
    examples = [
        conversation(1, ("user", "fine"), ("assistant", "a")),
        conversation(2, ("system", "x" * 90), ("user", "long"), ("assistant", "a")),
        conversation(3, ("user", "no"), ("assistant", "a")),
        conversation(4, ("system", "x" * 90), ("user", "long")),
    ]
    assert [(f.code, f.severity, f.rows) for f in prompting.refusals(examples)] == [
        ("too-long", "error", ("data:2", "data:4")),
        ("template-refuses", "error", ("data:3",)),
    ]
    assert prompting.refusals(examples[:1]) == []
    model: Any = None  # it is not reached
    with pytest.raises(KilotuneError, match=r"(?s)data:2, data:4.*not this.*data:3"):
        prompting.answers(model, examples, Silent(), "judging")


def counting(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by the number of examples whose answers are generated, each time."""
    asked: list[int] = []
    answers = Prompting.answers

    def counted(self: Prompting, model: Any, examples: Any, *rest: Any) -> Any:
        asked.append(len(examples))
        return answers(self, model, examples, *rest)

    monkeypatch.setattr(Prompting, "answers", counted)
    return asked


def one_who_says_fine(folder: Path) -> tuple[Any, Prompting]:
    """A tiny model that has learnt to answer "fine", whatever it is asked."""
    model = source_at(folder).model(torch.float32)
    template = chat_template(source_at(folder).tokenizer())
    config = GenerationConfig(
        max_new_tokens=9, eos_token_id=[3, template.stop_id], pad_token_id=0, repetition_penalty=1.0
    )
    prompting = Prompting(template, Wording("", "{text}"), config, 500, 0)
    said = [*template.encode("fine"), template.stop_id]
    prompts = prompting.token_ids(classified(*[(f"film {n}", None) for n in range(4)]))
    ids = torch.tensor([[*prompt, *said] for prompt in prompts])
    masked = ids.masked_fill(torch.arange(ids.shape[1]) < ids.shape[1] - len(said), -100)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        model(input_ids=ids, labels=masked).loss.backward()
        optimizer.step()
    return model, prompting


@pytest.mark.parametrize("limit", [9, 2])
@pytest.mark.parametrize("stop", [None, ["in"]])
def test_labels_that_are_said_are_read_off_their_scores(
    tiny_model: Path, limit: int, stop: list[str] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, prompting = one_who_says_fine(tiny_model)
    prompting.generation.max_new_tokens, prompting.generation.stop_strings = limit, stop
    examples = classified(*[(f"film number {n}", None) for n in range(9)])
    plain = prompting.answers(model, examples, Silent(), "")
    expected = ("fi", False) if limit == 2 else ("f" if stop else "fine", True)
    assert {(one.text, one.stopped) for one in plain} == {expected}
    asked = counting(monkeypatch)
    for labels in (("fine", "bad"), ("funny", "bad")):
        asked.clear()
        said, scores = prompting.scored_answers(model, examples, labels, Silent(), "")
        assert said == plain
        assert len(scores) == len(examples)
        assert asked == ([TRIED] if labels[0] == "fine" else [len(examples)])


@pytest.fixture(scope="module")
def reviewing(smollm2: Path) -> tuple[Any, Prompting, list[Example]]:
    """The real model, how it is asked about film reviews, and some of these."""
    model = source_at(smollm2).model(torch.float32)
    template = chat_template(source_at(smollm2).tokenizer())
    stop = template.stop_id
    config = GenerationConfig(
        max_new_tokens=6, eos_token_id=[stop], pad_token_id=stop, repetition_penalty=1.0
    )
    prompting = Prompting(template, wording(None, None, REVIEWS), config, 500, 0)
    return model, prompting, classified(*movie_reviews()[:8])


@pytest.mark.slow
def test_answers_that_are_labels_are_not_generated_again_and_the_same(
    reviewing: tuple[Any, Prompting, list[Example]], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, prompting, examples = reviewing
    plain = prompting.answers(model, examples, Silent(), "")
    asked = counting(monkeypatch)
    said, scores = prompting.scored_answers(model, examples, REVIEWS, Silent(), "")
    assert said == plain
    assert sum(asked) < len(examples)
    assert asked[0] == TRIED
    alone = prompting.scores(model, examples, REVIEWS, Silent(), "")
    assert [one.log_likelihoods for one in scores] == [one.log_likelihoods for one in alone]

    # One that is sampled is generated, as is all where what was read off is not what is said.
    few = examples[:2]
    sampled, _ = prompting.at(1.0).scored_answers(model, few, REVIEWS, Silent(), "")
    assert sampled == prompting.at(1.0).answers(model, few, Silent(), "")
    monkeypatch.setattr(answer, "read_answer", lambda *rest: Generation("no", True, (1,)))
    told = Told()
    said, _ = prompting.scored_answers(model, examples, REVIEWS, told, "")
    assert said == plain
    assert told.lines == ["answers are generated: those read off the labels' scores are others"]

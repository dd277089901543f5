"""What a tuned model answers and how sure it is: labels by scoring, else by sampling."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from kilotune.augmentation.policy import versions
from kilotune.data.example import Example
from kilotune.data.finding import finding
from kilotune.data.normalise import without_answer
from kilotune.evaluation.confidence import Guess
from kilotune.generation.answer import Prompting
from kilotune.generation.decoding import Generation
from kilotune.generation.score import label_ids
from kilotune.models.source import locate
from kilotune.preparation.prepare import prepare
from kilotune.progress import Silent
from kilotune.recipe.load import load_recipe
from kilotune.self_training import guesses
from kilotune.self_training.guesses import NOTHING, _commonest, guess
from kilotune.session.loading import open_session
from kilotune.session.model_session import Session
from tests.support.made import sentences


def session(data: Path, model: Path, **unlabeled: Any) -> Session:
    recipe = load_recipe(
        settings={
            "data": {"train": str(data), "task": unlabeled.pop("task", "classify")},
            "model": {"name": str(model), "precision": "float32"},
            "unlabeled": unlabeled,
        }
    )
    return open_session(prepare(recipe, Silent()), locate(recipe.model), Silent())


def examples(of: Session, count: int = 6) -> tuple[Example, ...]:
    return of.prepared.parts.train[:count]


def test_a_label_is_guessed_by_its_likelihood_as_the_whole_answer(
    labelled: Path, tiny_model: Path
) -> None:
    asked = session(labelled, tiny_model)
    found = guess(asked, examples(asked))
    labels, model = asked.prepared.labels, asked.tunable.model.eval()
    for example, one in zip(examples(asked), found, strict=True):
        plain = []
        for label in labels:
            (prompt,) = asked.prompting.token_ids([without_answer(example)])
            (answer,) = label_ids(asked.prompting.template, [label])
            ids = torch.tensor([[*prompt, *answer]])
            with torch.no_grad():
                logits = model(ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
            plain.append(float(logits.gather(1, torch.tensor(answer)[:, None]).sum()))
        assert one.logits == pytest.approx(plain, abs=1e-3)
        assert one.answer == labels[plain.index(max(plain))] == labels[one.place]
        assert one.agrees


def test_what_cannot_be_asked_has_no_guess(
    labelled: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = session(labelled, tiny_model)
    first, second = examples(asked, 2)
    refused = finding("too-long", [second.id])
    monkeypatch.setattr(Prompting, "refusals", lambda *_: [refused])
    found = guess(asked, [first, second])
    assert found[0].answer in asked.prepared.labels
    assert found[1] is NOTHING


def test_a_free_answer_is_the_commonest_of_several_samples(
    labelled: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = session(labelled, tiny_model, task="generate", samples=4, temperature=0.7)
    said = {0: ("so", "so", "No", "so"), 1: ("a", "b", "cut off", "b")}
    seeds: list[int] = []

    def answers(self: Prompting, model: Any, given: Sequence[Example], *rest: Any) -> Any:
        assert all(example.answer is None for example in given)
        assert self.generation.temperature == 0.7
        seeds.append(self.seed)
        texts = [said[place][len(seeds) - 1] for place in range(len(given))]
        return [Generation(text, text != "cut off", (5, 6)) for text in texts]

    monkeypatch.setattr(Prompting, "answers", answers)
    before = asked.spent.generated
    found = guess(asked, examples(asked, 2))
    assert [one.answer for one in found] == ["so", "b"]
    assert [round(one.logits[0], 3) for one in found] == [1.099, 0.0]  # three and two of four
    assert len(set(seeds)) == 4
    assert asked.spent.generated - before == 16


def test_a_guess_is_consistent_if_every_altered_version_is_answered_alike(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "films.csv"
    rows = [f"{line},{('good', 'bad')[i % 2]}" for i, line in enumerate(sentences(60))]
    file.write_text("text,label\n" + "\n".join(rows) + "\n")
    asked = session(file, tiny_model, consistency=2, operations=["swap"])

    def label(example: Example) -> str:
        return ("bad", "good")[len(example.text.split()[0]) % 2]

    def by_first_word(of: Session, given: Sequence[Example], kept: object) -> list[Guess]:
        places = [asked.prepared.labels.index(label(example)) for example in given]
        return [Guess(asked.prepared.labels[place], (0.0, 0.0), place) for place in places]

    monkeypatch.setattr(guesses, "_scored", by_first_word)
    mine = [without_answer(example) for example in examples(asked, 30)]
    recipe = asked.prepared.recipe
    altering = recipe.augment.model_copy(update={"operations": recipe.unlabeled.operations})
    made = versions(mine, altering, 2, seed=recipe.seed)
    alike = [all(label(v) == label(e) for v in own) for e, own in zip(mine, made, strict=True)]
    expected = [bool(own) and same for own, same in zip(made, alike, strict=True)]
    assert {True, False} == set(expected)
    assert [one.agrees for one in guess(asked, mine)] == expected


def test_the_commonest_answer_is_kept_as_it_was_said() -> None:
    said = '{"name": "Ann", "age": 3}'
    read = '{"age": 3, "name": "Ann"}'
    other = '{"name":"Ann","age":3}'
    guess = _commonest([("no", ""), (said, read), (other, read), ("{}", "{}")])
    assert (guess.answer, guess.place) == (said, 0)
    assert guess.logits == (0.0, 0.0)  # two of four


def test_where_most_cannot_be_read_there_is_no_answer() -> None:
    assert _commonest([("", ""), ("", ""), ("yes", "yes")]).answer == ""

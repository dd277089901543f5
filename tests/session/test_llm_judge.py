"""Another model that compares the answers of a run: recorded, shown, and refused in time."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import kilotune
from kilotune.errors import KilotuneError
from kilotune.generation.decoding import Generation
from kilotune.models.source import Source
from kilotune.progress import Silent
from kilotune.recipe.load import load_recipe
from kilotune.recipe.schema import JudgeSettings, Recipe
from kilotune.runs.record import RunFolder
from kilotune.session import llm_judge
from kilotune.session.llm_judge import ChatJudge, OwnJudge, open_judge, preference
from tests.support.records import written
from tests.support.tiny import labelled_csv

Model = Tokenizer = Any
Prompts = Sequence[Sequence[int]]
SHORT = "{question} A: {first} B: {second}"
asked: list[str] = []


def longest(prompt: str) -> str:
    """Prefers the longer answer."""
    asked.append(prompt)
    first, second = prompt.split("[Answer A]\n")[1].split("\n\n[Answer B]\n")
    return "[[A]]" if len(first) > len(second.split("\n\nWhich")[0]) else "[[B]]"


def failing(prompt: str) -> str:
    """Answers what is asked before training, and nothing after."""
    if "How are you?" in prompt:
        return "[[A]]"
    raise ConnectionError("gone")


def at_once(prompt: str) -> str:
    """Fails the first time."""
    raise ConnectionError("gone")


def recipe(data: Path, model: Path, judge: str, *overrides: str) -> Recipe:
    settings = {"data": {"train": str(data)}, "model": {"name": str(model)}}
    usual = ["model.precision=float32", "tune.epochs=1", "judge.bootstrap_samples=50"]
    usual += ["judge.forgetting=never", f"judge.model={judge}"]
    return load_recipe(settings=settings, overrides=[*usual, *overrides])


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    rows = [{"prompt": f"count {n}", "completion": f"one, two and then {n}"} for n in range(40)]
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_a_judge_of_ones_own_is_asked_in_both_orders_and_its_verdicts_are_kept(
    texts: Path, tiny_model: Path, tmp_path: Path
) -> None:
    asked.clear()
    name = f"{__name__}:longest"
    run = kilotune.run(recipe(texts, tiny_model, name, "judge.pairs=6"), tmp_path / "run")
    found = run.preference
    assert found is not None
    assert (found.judge, found.pairs, found.unread) == (name, 6, 0)
    assert len(asked) == 1 + 2 * (6 - found.same)  # one before training
    rows = {row["id"]: row for row in RunFolder(run.folder).read_predictions()}
    for opinion in found.opinions:
        base, tuned = (rows[opinion.id][f"{who}_output"] for who in ("base", "tuned"))
        expected = "tuned" if len(tuned) > len(base) else "base"
        # Of equal lengths this judge prefers the second place.
        even = "same" if tuned.strip() == base.strip() else "inconsistent"
        assert opinion.outcome == (even if len(tuned) == len(base) else expected)
    on_record = written(run.folder, "judgement.json")["preference"]
    assert on_record["paired"]["wins"] == found.paired.wins
    assert len(on_record["opinions"]) == 6
    assert f"{name} compared" in (run.folder / "report.html").read_text(encoding="utf-8")


def test_without_a_judge_nothing_is_compared(tiny_run: Path) -> None:
    assert written(tiny_run, "judgement.json")["preference"] is None
    assert "another model prefers" not in (tiny_run / "report.html").read_text(encoding="utf-8")


def test_a_chat_model_is_asked_by_its_template_what_it_can_read(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def generate(model: Model, tokenizer: Tokenizer, prompts: Prompts, *_: object, **__: object):  # type: ignore[no-untyped-def]
        read.extend(tokenizer.decode(ids) for ids in prompts.token_ids)
        return [Generation(f"[[{'AB'[n]}]]", True, (1, 2, 3)) for n in range(len(prompts))]

    monkeypatch.setattr(llm_judge, "generate", generate)
    judge = open_judge(JudgeSettings(model=str(tiny_model)), said := Said())
    assert isinstance(judge, ChatJudge)
    # The second is longer than the model's 2,048 tokens.
    assert judge(["one", "x" * 3000, "two"]) == ["[[A]]", "", "[[B]]"]
    turn = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
    assert read == [turn.format("one"), turn.format("two")]
    assert said.lines == ["1 prompts cannot be put to the judge"]


def test_a_model_that_says_nothing_of_use_is_no_judge(
    texts: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llm_judge, "ROOM", 4)
    chosen = recipe(texts, tiny_model, str(tiny_model), "judge.pairs=4", "judge.prompt=" + SHORT)
    found = kilotune.run(chosen, tmp_path / "run").preference
    assert found is not None
    assert (found.pairs, found.unread + found.same) == (4, 4)
    assert found.prompt == SHORT


def test_a_judge_that_fails_after_training_loses_no_run() -> None:
    judge = open_judge(JudgeSettings(model=f"{__name__}:failing"), said := Said())
    assert isinstance(judge, OwnJudge)
    assert judge(["one", "two"]) == ["", ""]
    assert said.lines == ["warning: the judge failed 2 times: ConnectionError('gone')"]


def test_a_chat_judge_that_fails_after_training_loses_no_run(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*given: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(Source, "model", full)
    chosen = recipe(Path("texts.csv"), tiny_model, str(tiny_model))
    session = SimpleNamespace(prepared=SimpleNamespace(recipe=chosen))
    judged = SimpleNamespace(
        examples=(), answers={name: SimpleNamespace(texts=()) for name in ("base", "tuned")}
    )
    assert preference(session, judged, said := Said()) is None  # type: ignore[arg-type]
    assert said.lines == [
        "warning: nothing was compared, the judge failed: RuntimeError('out of memory')"
    ]


class Said(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


@pytest.mark.parametrize(
    ("judge", "what"),
    [
        (f"{__name__}:at_once", r"the judge fails: ConnectionError\('gone'\)"),
        (f"{__name__}:nobody", "cannot import it"),
        ("no/such-model", "no/such-model"),
        ("weightless", "weightless"),
    ],
)
def test_a_judge_that_cannot_be_asked_is_refused_before_training(
    judge: str, what: str, texts: Path, tiny_model: Path, tmp_path: Path
) -> None:
    if judge == "weightless":
        judge = str(shutil.copytree(tiny_model, tmp_path / judge))
        (tmp_path / "weightless" / "model.safetensors").unlink()
    with pytest.raises(KilotuneError, match=what):
        kilotune.run(recipe(texts, tiny_model, judge), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_labels_need_no_judge(tiny_model: Path, tmp_path: Path) -> None:
    data = labelled_csv(tmp_path / "films.csv")
    with pytest.raises(KilotuneError, match="'classify' is judged by its own metrics alone"):
        kilotune.run(recipe(data, tiny_model, f"{__name__}:longest"), tmp_path / "run")


def test_a_prompt_without_the_answers_is_refused(texts: Path, tiny_model: Path) -> None:
    with pytest.raises(KilotuneError, match=r"prompt lacks \{second\}"):
        recipe(texts, tiny_model, f"{__name__}:longest", "judge.prompt={question} {first}")

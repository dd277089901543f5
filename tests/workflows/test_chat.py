"""A chat on a tiny run: both models answer, each by its own past, decoded as was asked for."""

import shutil
from itertools import pairwise
from pathlib import Path

import pytest
import torch

import kilotune
from kilotune.errors import KilotuneError
from kilotune.generation.decoding import Generation
from kilotune.workflows.chat import BASE, TUNED, Chat


@pytest.fixture
def chat(tiny_run: Path) -> Chat:
    return kilotune.chat(tiny_run)


def said(chat: Chat, name: str, text: str) -> list[str]:
    shown: list[str] = []
    chat.ask(name, text, shown.append)
    return shown


def test_both_models_answer_as_the_text_grows_and_the_adapter_is_back_afterwards(
    chat: Chat,
) -> None:
    chat.set("max_new_tokens", "12")
    first, base, again = (said(chat, name, "a fine film") for name in (TUNED, BASE, TUNED))
    assert first == again != base
    assert len(first) > 1
    assert all(later.startswith(earlier) for earlier, later in pairwise(first))


def test_the_tuned_answer_is_the_one_that_predict_gives(chat: Chat, tiny_run: Path) -> None:
    from kilotune.workflows.predict import predict

    file = tiny_run.parent / "one.csv"
    file.write_text("text\na fine film\n")
    seen: list[str] = []
    chat.ask(TUNED, "a fine film", seen.append)
    out = tiny_run.parent / "one_answered.csv"
    predict(tiny_run, file, out)
    assert out.read_text().splitlines()[1].split(",")[1] == (
        seen[-1] if seen[-1] in ("good", "bad") else ""
    )


def test_any_decoding_setting_can_be_changed_and_what_cannot_be_is_said(
    chat: Chat,
) -> None:
    stops = chat.prompting.generation.eos_token_id
    for name, value in (
        ("temperature", "0.7"), ("top_k", "20"), ("top_p", "0.9"), ("max_new_tokens", "30"),
        ("repetition_penalty", "1.1"), ("stop", "\\n"),
    ):  # fmt: skip
        chat.set(name, value)
    found = chat.settings
    assert (found.temperature, found.top_k, found.top_p) == (0.7, 20, 0.9)
    assert (found.max_new_tokens, found.repetition_penalty, found.stop) == (30, 1.1, ("\n",))
    assert chat.prompting.generation.eos_token_id == stops  # the template's own end stays
    chat.set("temperature", "0")
    assert (chat.settings.temperature, chat.settings.repetition_penalty) == (0, 1.1)
    with pytest.raises(KilotuneError, match=r"no decoding setting 'warmth'.*temperature"):
        chat.set("warmth", "1")
    with pytest.raises(KilotuneError, match="top_p"):
        chat.set("top_p", "2")
    assert chat.settings.top_p == 1.0


def test_the_same_seed_samples_the_same_and_the_next_turn_another(chat: Chat) -> None:
    chat.set("temperature", "1.0")
    chat.set("max_new_tokens", "12")
    torch.manual_seed(1)
    first = said(chat, TUNED, "film")[-1]
    torch.manual_seed(2)
    assert said(chat, TUNED, "film")[-1] == first
    chat.turns += 1
    assert said(chat, TUNED, "film")[-1] != first
    chat.reset()
    assert said(chat, TUNED, "film")[-1] == first


def test_each_model_goes_on_from_its_own_answers_where_the_task_is_to_converse(
    chat: Chat, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def generate(model, tokenizer, prompts, *_, show, **__):  # type: ignore[no-untyped-def]
        asked.append(tokenizer.decode(prompts.token_ids[0]))
        show("half")
        return [Generation(f"answer {len(asked)}", stopped=True, token_ids=(1,))]

    monkeypatch.setattr("kilotune.generation.answer.generate", generate)
    chat.task = "generate"
    for name, text in ((BASE, "alpha"), (TUNED, "alpha"), (BASE, "beta"), (TUNED, "beta")):
        chat.ask(name, text, lambda _: None)
    assert "answer 1" in asked[2]
    assert "answer 2" not in asked[2]
    assert "answer 2" in asked[3]
    chat.reset()
    chat.ask(TUNED, "gamma", lambda _: None)
    assert "alpha" not in asked[4]
    chat.task = "classify"
    chat.ask(TUNED, "four", lambda _: None)
    assert "gamma" not in asked[5]


def test_an_answer_that_is_stopped_counts_as_far_as_it_came(
    chat: Chat, monkeypatch: pytest.MonkeyPatch
) -> None:
    def generate(*_, show, **__):  # type: ignore[no-untyped-def]
        show("as far as th")
        raise KeyboardInterrupt

    monkeypatch.setattr("kilotune.generation.answer.generate", generate)
    chat.task = "generate"
    with pytest.raises(KeyboardInterrupt):
        chat.ask(TUNED, "one", lambda _: None)
    assert [m.text for m in chat.history[TUNED]] == ["one", "as far as th"]


def test_a_run_that_did_not_finish_has_no_chat(tiny_run: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_run, tmp_path / "run")
    (tmp_path / "run" / "verdict.json").unlink()
    with pytest.raises(KilotuneError, match="not finished"):
        kilotune.chat(tmp_path / "run")

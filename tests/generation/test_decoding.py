from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GenerationConfig

from kilotune.generation import decoding
from kilotune.generation.decoding import (
    Generation,
    decoding_settings,
    generate,
    generation_config,
    room,
)
from kilotune.generation.prompts import Prompts
from kilotune.models.source import source_at
from kilotune.progress import Silent
from kilotune.recipe.schema import DecodingSettings, ModelSettings
from tests.support.kinds import KINDS, tiny_kind

PROMPTS = [list(range(10, 10 + length)) for length in (5, 17, 9, 30, 2)]


@pytest.fixture(scope="module")
def loaded(tiny_model: Path) -> tuple[Any, Any]:
    settings = ModelSettings()
    model = source_at(tiny_model, settings).model(torch.float32)
    return model, source_at(tiny_model, settings).tokenizer()


def answers(
    loaded: tuple[Any, Any], prompts: list[list[int]], seed: int = 0, **settings: Any
) -> list[Generation]:
    model, tokenizer = loaded
    config = generation_config(
        DecodingSettings(max_new_tokens=8, **settings),
        answer_tokens=3,
        stop_ids=[tokenizer.eos_token_id],
        pad_id=tokenizer.pad_token_id,
    )
    return generate(model, tokenizer, Prompts(prompts), config, seed=seed, progress=Silent())


def test_a_batch_says_what_each_prompt_alone_says(loaded: tuple[Any, Any]) -> None:
    alone = [answers(loaded, [prompt])[0] for prompt in PROMPTS]
    assert answers(loaded, PROMPTS) == alone
    assert len({answer.text for answer in alone}) > 1


def test_small_batches_keep_the_order(
    loaded: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = answers(loaded, PROMPTS)
    monkeypatch.setattr(decoding, "TOKEN_BUDGET", 20)
    assert answers(loaded, PROMPTS) == whole


def test_sampling_follows_its_seed_and_leaves_the_global_generator(
    loaded: tuple[Any, Any],
) -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    first = answers(loaded, PROMPTS, seed=1, temperature=1.0)
    assert torch.equal(torch.rand(2), expected)
    assert answers(loaded, PROMPTS, seed=1, temperature=1.0) == first
    assert answers(loaded, PROMPTS, seed=2, temperature=1.0) != first


def test_an_answer_ends_at_a_stop_token_and_says_so(loaded: tuple[Any, Any]) -> None:
    _, tokenizer = loaded
    stop = tokenizer.eos_token_id
    word = tokenizer.encode("yes", add_special_tokens=False)
    ended = decoding.read_answer(tokenizer, [*word, stop, *word], {stop})
    assert ended == Generation("yes", stopped=True, token_ids=(*word, stop))
    assert decoding.read_answer(tokenizer, word, {stop}) == Generation("yes", False, tuple(word))


def test_an_answer_keeps_the_tokens_that_were_said(loaded: tuple[Any, Any]) -> None:
    """Half of a character's bytes are a sign that is three bytes when its text is encoded again."""
    _, tokenizer = loaded
    half = tokenizer.encode("é", add_special_tokens=False)[:1]
    said = decoding.read_answer(tokenizer, half * 2, set())
    assert (said.token_ids, said.tokens) == (tuple(half * 2), 2)
    assert len(tokenizer.encode(said.text, add_special_tokens=False)) > 2


def test_decoding_settings_reach_transformers() -> None:
    settings = DecodingSettings(temperature=0.7, top_k=50, top_p=0.9)
    config = generation_config(settings, answer_tokens=3, stop_ids=[2, 5], pad_id=0)
    assert (config.do_sample, config.temperature, config.top_k, config.top_p) == (
        True,
        0.7,
        50,
        0.9,
    )
    assert (config.max_new_tokens, config.eos_token_id) == (3, [2, 5])
    assert not generation_config(
        DecodingSettings(), answer_tokens=3, stop_ids=[2], pad_id=0
    ).do_sample


def test_decoding_settings_survive_the_way_to_transformers_and_back(tmp_path: Path) -> None:
    for settings in (
        DecodingSettings(max_new_tokens=9),
        DecodingSettings(temperature=0.7, top_k=20, max_new_tokens=9),
        DecodingSettings(top_p=0.8, temperature=1, repetition_penalty=1.1, max_new_tokens=9),
        DecodingSettings(stop=("END", "\n\n"), max_new_tokens=9),
    ):
        config = generation_config(settings, answer_tokens=3, stop_ids=[2, 5], pad_id=0)
        config.save_pretrained(tmp_path)
        assert decoding_settings(GenerationConfig.from_pretrained(tmp_path)) == settings


def test_room_is_the_99th_percentile_and_a_fifth_more_at_least_four() -> None:
    assert room([2]) == 6
    assert room([*[100] * 199, 5000]) == 120
    assert room([10, 100]) == 120


def test_a_stop_string_ends_the_answer_and_is_no_part_of_it(loaded: tuple[Any, Any]) -> None:
    model, tokenizer = loaded
    plain = answers(loaded, PROMPTS)
    assert plain[:2] == [Generation(s * 8, False, tuple(8 * tokenizer.encode(s))) for s in "/;"]
    found = answers(loaded, PROMPTS, stop=("none such", ";;;"))
    assert found == [plain[0], Generation("", True, plain[1].token_ids[:3]), *plain[2:]]
    steps = []
    forward = model.register_forward_hook(lambda *_: steps.append(1))
    answers(loaded, [PROMPTS[1]], stop=(";;;",))
    forward.remove()
    assert len(steps) == 3


def test_padding_does_not_change_what_a_repetition_penalty_does(loaded: tuple[Any, Any]) -> None:
    _, tokenizer = loaded
    # The padding is a token that the model likes to say.
    plain = answers(loaded, [PROMPTS[1]])
    tokenizer.pad_token_id = tokenizer.encode(plain[0].text, add_special_tokens=False)[0]
    try:
        alone = [answers(loaded, [prompt], repetition_penalty=3.0)[0] for prompt in ALIKE]
        assert answers(loaded, ALIKE, repetition_penalty=3.0) == alone
        assert answers(loaded, ALIKE) != alone
    finally:
        tokenizer.pad_token_id = 256


def test_a_models_own_penalty_does_not_slip_into_greedy_decoding(loaded: tuple[Any, Any]) -> None:
    model, _ = loaded
    plain = answers(loaded, PROMPTS)
    model.generation_config.repetition_penalty = 5.0
    try:
        assert answers(loaded, PROMPTS) == plain
    finally:
        model.generation_config.repetition_penalty = 1.0


SYSTEM = list(range(10, 30))
ALIKE = [[*SYSTEM, *range(40 + i, 40 + i + length)] for i, length in enumerate((4, 9, 1, 6, 4))]


class Plain:
    """Decodes token ids to themselves."""

    def decode(self, ids: list[int], **_: Any) -> str:
        return " ".join(map(str, ids))


def said(model: Any, prompts: list[list[int]]) -> list[str]:
    config = generation_config(
        DecodingSettings(max_new_tokens=6), answer_tokens=3, stop_ids=[3], pad_id=0
    )
    found = generate(model, Plain(), Prompts(prompts), config, seed=0, progress=Silent())
    return [answer.text for answer in found]


@pytest.mark.parametrize("kind", KINDS)
def test_a_prefix_computed_once_changes_no_answer(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "TOKEN_BUDGET", 60)  # two rows a batch
    model = tiny_kind(kind)
    alone = [said(model, [prompt])[0] for prompt in ALIKE]
    widths = []
    embedded = model.get_input_embeddings().register_forward_hook(
        lambda _m, inputs, _out: widths.append(tuple(inputs[0].shape))
    )
    assert said(model, ALIKE) == alone
    embedded.remove()
    assert len(set(alone)) > 1
    prefills = [shape for shape in widths if shape[1] > 1]
    assert prefills[0] == (1, len(SYSTEM))
    # The longest prompt's own tokens; and two whole prompts with their answers, to compare.
    assert sum(width > 9 for _, width in prefills[1:]) == 2


def test_a_window_shorter_than_a_row_has_no_shared_prefix() -> None:
    model = tiny_kind("mistral", sliding_window=16)
    assert said(model, ALIKE) == [said(model, [prompt])[0] for prompt in ALIKE]


def test_what_has_a_say_besides_the_likeliest_token_is_seen() -> None:
    model = tiny_kind("llama")
    greedy = GenerationConfig(do_sample=False, max_new_tokens=5, repetition_penalty=1.0)
    assert decoding.plainly_greedy(model, greedy)
    assert not decoding.plainly_greedy(model, GenerationConfig(do_sample=True))
    assert not decoding.plainly_greedy(model, GenerationConfig(repetition_penalty=1.1))
    assert not decoding.plainly_greedy(model, GenerationConfig(repetition_penalty=1.0, num_beams=2))
    model.generation_config.no_repeat_ngram_size = 2
    assert not decoding.plainly_greedy(model, greedy)


def test_stop_strings_that_a_model_came_with_end_no_answer(loaded: tuple[Any, Any]) -> None:
    model, tokenizer = loaded
    config = GenerationConfig(max_new_tokens=5, eos_token_id=[0], pad_token_id=0)
    plain = generate(model, tokenizer, Prompts([[5, 6, 7]]), config, seed=0, progress=Silent())
    model.generation_config.stop_strings = ["a", "e"]
    assert (
        generate(model, tokenizer, Prompts([[5, 6, 7]]), config, seed=0, progress=Silent()) == plain
    )

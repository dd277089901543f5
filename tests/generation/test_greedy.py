from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch

from kilotune.data.example import Image
from kilotune.generation import decoding, greedy
from kilotune.generation.decoding import generate, generation_config
from kilotune.generation.greedy import GreedyDecoder
from kilotune.generation.prefix import NONE, shared_prefix
from kilotune.generation.prompts import Prompts
from kilotune.progress import Silent
from kilotune.recipe.schema import DecodingSettings
from tests.support.kinds import KINDS, tiny_kind

SYSTEM = list(range(10, 30))
ALIKE = [[*SYSTEM, *range(40 + i, 40 + i + length)] for i, length in enumerate((4, 9, 1, 6, 4, 2))]
OTHERS = [list(range(start, start + 7 * start % 19 + 1)) for start in range(5, 60, 5)]
MOST = 12


class Plain:
    """Decodes token ids to themselves."""

    def decode(self, ids: list[int], **_: Any) -> str:
        return " ".join(map(str, ids))


class Told(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def transformers_says(model: Any, prompt: list[int], stops: list[int]) -> tuple[int, ...]:
    """What transformers generates for one prompt, cut behind its first stop token."""
    ids = torch.tensor([prompt])
    output = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=MOST,
        eos_token_id=stops,
        pad_token_id=0,
    )
    said: list[int] = output[0, len(prompt) :].tolist()
    return tuple(said)


def rare_tokens(answers: list[tuple[int, ...]]) -> list[int]:
    """Tokens that end some of `answers` soon, some late, and some never."""
    found: list[int] = []
    for place in (2, 0, 5):
        ended = [answer for answer in answers if not {*found} & {*answer}]
        counts = {a[place]: sum(a[place] in other for other in ended) for a in ended}
        if counts:
            found.append(min(counts, key=lambda token: (counts[token], token)))
    return found


def answers(
    model: Any, prompts: list[list[int]], stops: list[int], told: Silent | None = None, **more: Any
) -> list[tuple[int, ...]]:
    settings = DecodingSettings(max_new_tokens=MOST, **more)
    config = generation_config(settings, answer_tokens=3, stop_ids=stops, pad_id=0)
    asked, progress = Prompts(prompts), told or Silent()
    found = generate(model, Plain(), asked, config, seed=5, progress=progress)
    return [answer.token_ids for answer in found]


@contextmanager
def rows_of_forwards(model: Any) -> Iterator[list[tuple[int, int]]]:
    """The rows and columns of token ids that each forward is given."""
    shapes: list[tuple[int, int]] = []
    embedded = model.get_input_embeddings().register_forward_hook(
        lambda _m, inputs, _out: shapes.append(tuple(inputs[0].shape))
    )
    yield shapes
    embedded.remove()


@pytest.mark.parametrize("prompts", [ALIKE, OTHERS], ids=["shared prefix", "nothing shared"])
@pytest.mark.parametrize("kind", [*KINDS, "gemma2"])
def test_answers_are_those_of_transformers_token_for_token(
    kind: str, prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(greedy, "READ_AT_ONCE", 16)
    monkeypatch.setattr(greedy, "ROWS", 5)  # several batches, each of them read in parts
    model, told = tiny_kind(kind), Told()
    unstopped = [transformers_says(model, prompt, [127]) for prompt in prompts]
    stops = rare_tokens(unstopped)
    expected = [transformers_says(model, prompt, stops) for prompt in prompts]
    assert len({len(answer) for answer in expected}) > (1 if kind == "gemma2" else 2)
    assert answers(model, prompts, stops, told) == expected
    assert not told.lines


def test_rows_that_have_ended_are_not_computed() -> None:
    model = tiny_kind("llama")
    unstopped = [transformers_says(model, prompt, [127]) for prompt in OTHERS]
    stops = rare_tokens(unstopped)
    lengths = [len(transformers_says(model, prompt, stops)) for prompt in OTHERS]
    with rows_of_forwards(model) as shapes:
        answers(model, OTHERS, stops)
    # A step is for the answers that have more tokens than steps there were before.
    going = [sum(length > step for length in lengths) for step in range(1, max(lengths))]
    steps = [rows for rows, columns in shapes if columns == 1][-len(going) :]
    assert steps == going
    assert len(set(going)) > 2


def test_a_row_that_moves_up_goes_on_with_its_own_past() -> None:
    assert greedy._closed_up([True, False, True, False, True]) == [0, 4, 2]
    assert greedy._closed_up([False, False, True]) == [2]
    assert greedy._closed_up([True, True]) == [0, 1]
    assert greedy._closed_up([False]) == []


def test_prompts_are_read_a_few_hundred_tokens_at_a_time() -> None:
    lengths = [300, 200, 200, 100, 90, 90, 90, 1000]
    assert list(greedy._stretches(sorted(lengths, reverse=True))) == [
        (0, 1),
        (1, 2),
        (2, 4),
        (4, 8),
    ]


def test_of_tokens_that_are_as_likely_the_first_is_said() -> None:
    """As transformers does: in bfloat16 that is no rare thing."""
    logits = torch.randint(3, (50, 5000), generator=torch.Generator().manual_seed(0))
    for dtype in (torch.float32, torch.bfloat16):
        found = logits.to(dtype)
        assert torch.equal(found.max(dim=-1).indices, found.float().argmax(dim=-1))


def test_rows_share_a_batch_as_far_as_their_keys_and_values_have_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    decoder = GreedyDecoder(tiny_kind("llama"), NONE, 0, MOST, lambda _: False)
    assert decoder.rows(100) == greedy.ROWS
    # Two layers of two heads of 8 float32 numbers, keys and values: 256 bytes a token.
    monkeypatch.setattr(greedy, "ROOM", 256 * (100 + MOST) * 7)
    assert (decoder.rows(100), decoder.rows(10**6)) == (7, 1)


def test_a_loop_that_goes_wrong_gives_way_to_transformers_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, told = tiny_kind("llama"), Told()
    expected = [transformers_says(model, prompt, [127]) for prompt in ALIKE]
    monkeypatch.setattr(greedy, "left_padded", _shifted(greedy.left_padded))
    assert answers(model, ALIKE, [127], told) == expected
    (line,) = told.lines
    assert line.startswith("answers come from transformers' own loop: by the fast one, log-")


def _shifted(padded: Any) -> Any:
    """The same, the mask hiding a token of every row."""

    def wrong(*args: Any) -> Any:
        inputs = padded(*args)
        inputs["attention_mask"][:, -2] = 0
        return inputs

    return wrong


def test_what_a_models_code_raises_gives_way_to_transformers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, told = tiny_kind("llama"), Told()
    monkeypatch.setattr(greedy.Slots, "keep", lambda *_: 1 / 0)
    expected = [transformers_says(model, prompt, [127]) for prompt in ALIKE]
    assert answers(model, ALIKE, [127], told) == expected
    (line,) = told.lines
    assert line.endswith("by the fast one, division by zero")


def test_the_error_is_that_of_the_answers_likelihood() -> None:
    model = tiny_kind("llama")
    with torch.inference_mode():
        prefix = shared_prefix(model, ALIKE, MOST)
        decoder = GreedyDecoder(model, prefix, 0, 4, lambda _: False)
        ordered = sorted(ALIKE, key=len, reverse=True)
        answered = decoder.answer(ordered)
        assert answered.likelihoods.keys() == {0, len(ALIKE) - 1}
        for row, likelihood in answered.likelihoods.items():
            ids = torch.tensor([[*ordered[row], *answered.token_ids[row]]])
            logs = model(ids).logits[0, -5:-1].log_softmax(-1)
            plain = float(logs.gather(1, ids[0, -4:, None]).sum())
            assert plain == pytest.approx(likelihood, abs=1e-4)
        assert decoder.error(ordered, answered) == ""
        for row in (0, len(ALIKE) - 1):
            for off in (0.01, float("nan")):
                wrong = {**answered.likelihoods, row: answered.likelihoods[row] - off}
                assert "off by" in decoder.error(ordered, replace(answered, likelihoods=wrong))


def test_what_is_drawn_penalised_shown_or_of_images_comes_from_transformers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = tiny_kind("llama")
    monkeypatch.setattr(decoding, "_greedy", lambda *_: 1 / 0)
    assert len(answers(model, ALIKE, [127], temperature=1.0)) == len(ALIKE)
    assert len(answers(model, ALIKE, [127], repetition_penalty=2.0)) == len(ALIKE)
    assert answers(model, ALIKE[:1], [127]) == [transformers_says(model, ALIKE[0], [127])]
    config = generation_config(DecodingSettings(), answer_tokens=3, stop_ids=[3], pad_id=0)
    seen = Prompts(ALIKE, [[Image("a.png")] for _ in ALIKE])
    assert decoding._looped(model, Prompts(ALIKE), config)
    assert not decoding._looped(model, seen, config)


def test_keys_written_in_place_change_nothing_that_is_drawn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = tiny_kind("qwen3")
    drawn = answers(model, ALIKE, [127], temperature=1.5)
    monkeypatch.setattr(decoding, "shared_prefix", lambda *_: NONE)
    assert answers(model, ALIKE, [127], temperature=1.5) == drawn

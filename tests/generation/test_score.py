import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, BloomConfig

from kilotune.generation import score
from kilotune.generation.kept import KeptStates
from kilotune.generation.prompts import Prompts
from kilotune.generation.score import (
    LabelScores,
    LabelSet,
    LabelTree,
    answer_losses,
    label_ids,
    score_labels,
)
from kilotune.models.source import source_at
from kilotune.progress import Silent
from kilotune.recipe.schema import ModelSettings
from kilotune.rendering.probe import chat_template
from tests.support.kinds import KINDS, tiny_kind

STOP = 3
# Some begin alike, one is the beginning of another, one is a single token.
LABELS = [[10, 11, STOP], [10, 12, 13, STOP], [10, 11, 14, STOP], [20, STOP], [30]]
SYSTEM = list(range(40, 60))
PROMPTS = [[*SYSTEM, *range(60 + i, 60 + i + length)] for i, length in enumerate((3, 9, 1, 14, 6))]
APART = [[70 + i, *prompt] for i, prompt in enumerate(PROMPTS)]


class Said(Silent):
    """Keeps the lines it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def one_by_one(model: Any, prompts: list[list[int]], labels: list[list[int]]) -> torch.Tensor:
    """Every label after every prompt alone: no padding, no cache, no mask of ours."""
    sums = torch.empty(len(prompts), len(labels))
    for row, prompt in enumerate(prompts):
        for column, label in enumerate(labels):
            ids = torch.tensor([[*prompt, *label]])
            with torch.no_grad():
                logits = model(input_ids=ids).logits[0, len(prompt) - 1 : -1].log_softmax(dim=-1)
            sums[row, column] = logits[torch.arange(len(label)), torch.tensor(label)].sum()
    return sums


def scores(model: Any, prompts: list[list[int]], progress: Any = None) -> list[LabelScores]:
    return score_labels(
        model, Prompts(prompts), LabelSet(LABELS, pad_id=0), progress=progress or Silent()
    )


def relative_error(found: list[LabelScores], plain: torch.Tensor) -> float:
    sums = torch.tensor([each.log_likelihoods for each in found])
    return float(((sums - plain).abs() / plain.abs()).max())


def test_the_tree_shares_what_labels_begin_with_and_never_computes_their_last_tokens() -> None:
    tree = LabelTree.of(LABELS)
    assert tree.tokens == (10, 11, 12, 13, 14, 20)
    assert tree.parents == (-1, 0, 0, 2, 1, -1)
    assert tree.depths == (1, 2, 2, 3, 3, 1)
    assert tree.sees().sum(dim=1).tolist() == [1, 2, 2, 3, 3, 1]
    predictions = list(zip(tree.owners, tree.columns, tree.targets, strict=True))
    assert predictions[:3] == [(0, 0, 10), (0, 1, 11), (0, 2, STOP)]
    assert predictions[-1] == (4, 0, 30)
    assert len(predictions) == sum(len(label) for label in LABELS)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("prompts", [PROMPTS, APART], ids=["shared prefix", "nothing shared"])
def test_all_labels_at_once_equal_each_label_alone(
    kind: str, prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(score, "TOKEN_BUDGET", 50)  # several batches
    model, said = tiny_kind(kind), Said()
    found = scores(model, prompts, said)
    assert not said.lines
    plain = one_by_one(model, prompts, LABELS)
    assert plain.std() > 0.1  # labels and prompts can be told apart
    assert relative_error(found, plain) < 1e-5


def plain_greedy(model: Any, prompt: list[int], stops: set[int], most: int) -> list[int]:
    """The likeliest token each time, all of it computed anew."""
    said: list[int] = []
    while len(said) < most and not (said and said[-1] in stops):
        with torch.no_grad():
            said.append(int(model(torch.tensor([[*prompt, *said]])).logits[0, -1].argmax()))
    return said


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("kept", [False, True], ids=["whole", "kept"])
def test_greedy_answers_are_read_off_as_long_as_they_are_labels(kind: str, kept: bool) -> None:
    model = tiny_kind(kind)
    for parameter in model.get_input_embeddings().parameters():
        parameter.requires_grad = False
    stops = {plain_greedy(model, prompt, set(), 3)[-1] for prompt in PROMPTS[:3]}
    answers = [plain_greedy(model, prompt, stops, 20) for prompt in PROMPTS]
    assert {answer[-1] in stops for answer in answers[:3]} == {True}
    labels = [*answers[:3], [10, 11, STOP], [*answers[0][:1], STOP]]
    states = KeptStates(below=1, limit=10**9) if kept else None
    for _ in range(2):
        closed = LabelSet(labels, pad_id=0, stops=stops)
        found = score_labels(model, Prompts(PROMPTS), closed, progress=Silent(), kept=states)
        told = [None if one.greedy is None else list(one.greedy) for one in found]
        assert told[:3] == answers[:3]
        for one, answer in zip(told[3:], answers[3:], strict=True):
            assert one == answer if answer in labels else one is None
    assert all(one.greedy is None for one in scores(model, PROMPTS))  # no token ends an answer


def test_what_is_on_an_edge_or_leaves_the_labels_is_not_known() -> None:
    tree = LabelTree.of(LABELS)  # columns: 0 the prompt, then 10, 11, 12, 13, 14, 20
    assert tree.greedy([10, 11, STOP, 0, 0, 0, 0], {STOP}) == (10, 11, STOP)
    assert tree.greedy([10, 11, 14, 0, 0, STOP, 0], {STOP}) == (10, 11, 14, STOP)
    assert tree.greedy([STOP, 0, 0, 0, 0, 0, 0], {STOP}) == (STOP,)
    assert tree.greedy([10, 99, 0, 0, 0, 0, 0], {STOP}) is None
    assert tree.greedy([-1, 11, STOP, 0, 0, 0, 0], {STOP}) is None
    logits = torch.tensor([[[0.0, 5.0, 4.9], [3.0, 1.0, 2.0]]])
    assert score._likeliest(logits.clone(), 0.5) == [[-1, 0]]
    assert score._likeliest(logits.clone(), 0.01) == [[1, 0]]


def test_eager_attention_scores_the_same() -> None:
    model, said = tiny_kind("llama"), Said()
    model.set_attn_implementation("eager")
    assert relative_error(scores(model, PROMPTS, said), one_by_one(model, PROMPTS, LABELS)) < 1e-5
    assert not said.lines


def test_means_are_per_token_and_probabilities_sum_to_one() -> None:
    model = tiny_kind("llama")
    for found in scores(model, PROMPTS):
        for total, mean, label in zip(found.log_likelihoods, found.normalised, LABELS, strict=True):
            assert mean == pytest.approx(total / len(label))
        weights = [math.exp(total) for total in found.log_likelihoods]
        expected = [weight / sum(weights) for weight in weights]
        assert found.probabilities == pytest.approx(expected)


def test_the_loss_of_an_answer_is_that_of_its_tokens_alone_after_its_own_prompt() -> None:
    model = tiny_kind("llama")
    found = answer_losses(model, Prompts(PROMPTS), LABELS, pad_id=0, progress=Silent())
    plain = one_by_one(model, PROMPTS, LABELS)
    expected = [-float(plain[i, i]) / len(label) for i, label in enumerate(LABELS)]
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("kind", "settings", "reason"),
    [
        ("mistral", {"sliding_window": 12}, "window of 12 tokens"),
        ("gemma2", {"sliding_window": 12}, "window of 12 tokens"),
    ],
)
def test_a_window_shorter_than_a_row_is_scored_one_by_one_and_said(
    kind: str, settings: dict[str, int], reason: str
) -> None:
    model, said = tiny_kind(kind, **settings), Said()
    found = scores(model, PROMPTS, said)
    assert len(said.lines) == 1
    assert reason in said.lines[0]
    assert relative_error(found, one_by_one(model, PROMPTS, LABELS)) < 1e-5


def test_a_model_that_takes_no_positions_is_scored_one_by_one() -> None:
    torch.manual_seed(0)
    config = BloomConfig(vocab_size=128, hidden_size=32, n_layer=2, n_head=4)
    model, said = AutoModelForCausalLM.from_config(config).eval(), Said()
    found = scores(model, PROMPTS, said)
    assert "takes no positions" in said.lines[0]
    assert relative_error(found, one_by_one(model, PROMPTS, LABELS)) < 1e-5


def test_a_tree_that_the_model_gets_wrong_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def everything(pads: Any, longest: int, tree: LabelTree, shared: int) -> torch.Tensor:
        size = longest + len(tree.tokens)
        return torch.ones(len(pads), size, shared + size, dtype=torch.bool)

    monkeypatch.setattr(score, "_visible", everything)
    model, said = tiny_kind("llama"), Said()
    found = scores(model, PROMPTS, said)
    assert "scores are off by" in said.lines[0]
    assert relative_error(found, one_by_one(model, PROMPTS, LABELS)) < 1e-5


def test_only_the_logits_that_are_read_are_computed() -> None:
    model = tiny_kind("llama")
    seen = []
    head = model.get_output_embeddings()
    hook = head.register_forward_hook(lambda _m, _i, out: seen.append(out.shape[1]))
    scores(model, PROMPTS)
    hook.remove()
    assert seen[-1] == 1 + len(LabelTree.of(LABELS).tokens)


def test_a_label_is_its_tokens_and_the_token_that_ends_an_answer(tiny_model: Path) -> None:
    template = chat_template(source_at(tiny_model).tokenizer())
    ids = label_ids(template, ["good", "bad"])
    assert [len(label) for label in ids] == [5, 4]
    assert [label[-1] for label in ids] == [template.stop_id] * 2


@pytest.mark.slow
def test_the_real_model_scores_labels_at_once_as_alone(smollm2: Path) -> None:
    settings = ModelSettings()
    model = source_at(smollm2, settings).model(torch.float32)
    template = chat_template(source_at(smollm2, settings).tokenizer())
    labels = label_ids(template, ["good", "very good", "bad", "money-fx"])
    stem = "Say whether the film was good, very good, bad or about money-fx. The film was"
    ends = ["awful", "a delight from its first minute to its last", "so so", "long"]
    prompts = [template.encode(f"{stem} {end}: ") for end in ends]
    said = Said()
    closed = LabelSet(labels, pad_id=0)
    found = score_labels(model, Prompts(prompts), closed, progress=said)
    assert not said.lines
    assert relative_error(found, one_by_one(model, prompts, labels)) < 1e-5

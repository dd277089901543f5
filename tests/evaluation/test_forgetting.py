"""What was forgotten, as figures: from divergences that are known."""

import json
import math
from collections import Counter
from dataclasses import dataclass

import pytest
from pydantic import TypeAdapter

from kilotune.data.files.writers import to_json
from kilotune.data.languages import language
from kilotune.data.scripts import script
from kilotune.evaluation.evidence import Figure, Unavailable
from kilotune.evaluation.forgetting import Forgetting, forgetting, general_prompts, in_words
from kilotune.evaluation.health import Health

WELL = Health(4, 4, 0, 0, 0, 0, 0, 0)


@dataclass(frozen=True)
class Known:
    tokens: int
    divergence: float
    base_loss: float = 1.0
    tuned_loss: float = 1.0


def found(*drifts: Known, kinds: tuple[str, ...] = ()) -> Forgetting:
    return forgetting(
        kinds or ("fact",) * len(drifts), drifts, base_health=WELL, health=WELL, samples=200, seed=0
    )


def test_there_are_a_hundred_different_prompts_of_five_kinds_in_two_languages() -> None:
    prompts = general_prompts()
    assert len({one.prompt for one in prompts}) == 100
    counts = Counter((one.kind, one.language) for one in prompts)
    kinds = ("instruction", "fact", "arithmetic", "code", "nonsense")
    assert counts == {(kind, code): 10 for kind in kinds for code in ("en", "zh")}
    for one in prompts:
        assert (script(one.prompt) == "Latin" or language(one.prompt) == "English") == (
            one.language == "en"
        ), one


def test_a_model_that_did_not_move_kept_everything_and_its_interval_has_a_width() -> None:
    same = found(*[Known(10, 0.0)] * 40)
    assert isinstance(same.kept, Figure)
    assert (same.kept.value, same.kept.high, same.divergence) == (1, 1, 0)
    assert same.kept.low < 1
    assert not same.much


def test_the_score_is_the_mean_over_prompts_and_perplexity_is_over_tokens() -> None:
    moved = found(
        *[Known(10, 0.0, 1.0, 2.0), Known(30, math.log(2), 1.0, 3.0)] * 10,
        kinds=("fact", "code") * 10,
    )
    assert moved.kept.value == pytest.approx(0.75)
    assert moved.by_kind == {"fact": 1.0, "code": pytest.approx(0.5)}
    assert moved.base_perplexity == pytest.approx(math.e)
    assert moved.perplexity == pytest.approx(math.exp((10 * 2 + 30 * 3) / 40))
    assert (moved.prompts, moved.tokens) == (20, 400)


def test_too_few_answers_give_no_score_and_no_warning() -> None:
    few = found(*[Known(10, 9.0)] * 3)
    assert (few.kept.value, few.much) == (None, False)
    assert in_words(few) == "no figure: 3 examples; at least 6 are needed"


def test_a_model_that_moved_far_is_said_to_be_for_its_task_alone() -> None:
    gone = found(*[Known(10, 5.0 + i / 100) for i in range(30)])
    assert gone.much
    assert in_words(gone).endswith("for other tasks than this use the base model")


def test_a_model_that_was_tuned_to_pieces_has_figures_that_say_so() -> None:
    lost = found(*[Known(10, 1e4, 1.0, 1e4)] * 10)
    assert (lost.kept.value, lost.perplexity) == (0.0, math.inf)  # past what a float holds
    broken = found(*[Known(10, math.nan, 1.0, math.nan)] * 10)
    why = "10 of 10 values are not finite, or too large to calculate with"
    assert broken.kept == Unavailable(why)
    assert in_words(broken) == f"no figure: {why}"
    # As a run's record gives it back.
    again = TypeAdapter(Forgetting).validate_python(json.loads(to_json(broken)))
    assert again.kept == broken.kept
    assert math.isnan(again.divergence)
    assert math.isnan(again.by_kind["fact"])

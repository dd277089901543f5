"""Whether the demo's success is one lucky seed."""

from pathlib import Path

import pytest

import kilotune
from kilotune.data.samples import write_sample
from kilotune.recipe.load import load_recipe

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]


@pytest.mark.parametrize("seed", [1, 2])
def test_auto_beats_the_baselines_with_other_seeds(
    seed: int, smollm2: Path, tmp_path: Path
) -> None:
    train, test = write_sample("movie-reviews", tmp_path)
    settings = {"seed": seed, "data": {"train": str(train), "test": str(test)}}
    run = kilotune.run(load_recipe(settings=settings), tmp_path / "run")
    by_name = {judgement.name: judgement for judgement in run.judgements}
    tuned, words = by_name["tuned"], by_name["tfidf"]
    print(f"seed {seed}: {tuned.figures['accuracy']}, {run.verdict.summary}")
    assert tuned.figures["accuracy"].value >= 0.83
    assert tuned.figures["accuracy"].low > words.figures["accuracy"].high
    assert run.tuned_against_base.p_value < 0.01

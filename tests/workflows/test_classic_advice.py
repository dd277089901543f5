"""The preset `article` on the real small model: nearly three minutes without fast bfloat16."""

import csv
from pathlib import Path

import pytest

import kilotune
from kilotune.data.files.writers import write_table
from kilotune.data.samples import write_sample
from kilotune.recipe.load import load_recipe


@pytest.mark.long
def test_the_classic_advice_underfits_and_the_verdict_says_so(
    smollm2: Path, tmp_path: Path
) -> None:
    train, _ = write_sample("movie-reviews", tmp_path / "reviews")
    rows = list(csv.DictReader(train.open(encoding="utf-8")))[:60]
    few = tmp_path / "few.csv"
    write_table(few, ("text", "label"), rows)
    settings = {"data": {"train": str(few), "test_fraction": 0.2}}
    run = kilotune.run(load_recipe(preset="article", settings=settings), tmp_path / "run")
    assert run.verdict.name == "underfit"
    assert run.verdict.next_steps[0].arguments == "--set tune.learning_rate=auto"

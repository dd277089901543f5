"""The page of candidates for `auto`, from the rows of its file."""

from pathlib import Path
from typing import Any

from benchmarks.per_label.cells import Results
from benchmarks.per_label.policy import CANDIDATES, PAGE, REFERENCE, page_text
from kilotune.recipe.load import load_recipe


def row(candidate: str, right: list[bool], graded: float) -> dict[str, Any]:
    return {
        "task": "r8", "size": 100, "seed": 0, "system": candidate, "right": right,
        "graded": {"value": graded},
    }  # fmt: skip


def test_each_candidate_stands_beside_the_reference_on_the_same_rows() -> None:
    half, most = [True, False] * 50, [True, True, True, False] * 25
    text = page_text([row(REFERENCE, half, 0.4), row("rate-2e-3", most, 0.6)], "x.parquet")
    assert f"| `{REFERENCE}` | 0.400 |" in text
    (line,) = [line for line in text.splitlines() if line.startswith("| `rate-2e-3`")]
    assert "0.600 (+0.250 [+0." in line


def test_every_candidate_is_a_recipe_and_the_page_is_of_its_file() -> None:
    for settings in CANDIDATES.values():
        recipe = load_recipe(settings={"data.train": "x.csv", **settings})
        assert recipe.tune.learning_rate == settings["tune.learning_rate"]
    results = Results(PAGE.with_suffix(".parquet"))
    assert Path(PAGE).read_text(encoding="utf-8") == page_text(results.rows(), "policy.parquet")

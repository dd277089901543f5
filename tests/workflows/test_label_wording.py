"""A whole run whose labels are called otherwise to the model: what users see keeps their labels."""

import csv
from pathlib import Path

import kilotune
from kilotune.recipe.load import load_recipe
from kilotune.runs.record import RunFolder
from kilotune.workflows.predict import predict
from tests.support.tiny import labelled_csv


def test_figures_and_predictions_stay_in_the_labels_of_the_data(
    tiny_model: Path, tmp_path: Path
) -> None:
    data = labelled_csv(tmp_path / "films.csv", 60)
    settings = {
        "data": {"train": str(data), "label_wording": "letters"},
        "model": {"name": str(tiny_model), "precision": "float32"},
        "tune": {"learning_rate": 1e-2, "epochs": 4},
        "judge": {"bootstrap_samples": 50, "forgetting": "never"},
    }
    run = kilotune.run(load_recipe(settings=settings), tmp_path / "run")
    rows = RunFolder(run.folder).read_predictions()
    called = {"A": "bad", "B": "good"}
    assert {row["tuned_output"] for row in rows} <= set(called)
    for row in rows:
        assert row["reference"] in ("bad", "good")
        assert row["tuned_prediction"] == called[row["tuned_output"]]
        assert row["tuned_right"] == (row["tuned_prediction"] == row["reference"])
    new = tmp_path / "new.csv"
    new.write_text("text\nfilm 3 was great\nfilm 8 was awful\n")
    predict(run.folder, new, tmp_path / "out.csv")
    with (tmp_path / "out.csv").open() as file:
        said = list(csv.DictReader(file))
    assert {row["prediction"] for row in said} <= {"bad", "good"}
    assert all(float(row["probability"]) > 0.5 for row in said)  # what is generated is likeliest

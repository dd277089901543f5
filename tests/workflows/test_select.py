"""What to label next: new and different rows, in a file that a run takes once it is filled in."""

import csv
import json
import re
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

import kilotune
from kilotune.cli.main import app
from kilotune.errors import KilotuneError
from kilotune.generation.answer import Prompting
from kilotune.preparation.prepare import prepare
from kilotune.progress import Silent
from kilotune.recipe.load import load_recipe
from kilotune.workflows.select import select
from tests.support.made import sentences

OLD = "film 3 was awful"  # the run was trained on it, or tested


@pytest.fixture(scope="module")
def free_run(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of free answers."""
    folder = tmp_path_factory.mktemp("free_run")
    rows = [{"prompt": text, "completion": f"{text} again"} for text in sentences(40)[20:]]
    (folder / "asked.jsonl").write_text("\n".join(map(json.dumps, rows)))
    settings = {
        "data": {"train": str(folder / "asked.jsonl")},
        "model": {"name": str(tiny_model), "precision": "float32"},
        "judge": {"bootstrap_samples": 50, "base_check": "say", "forgetting": "never"},
        "tune": {"epochs": 1},
    }
    return kilotune.run(load_recipe(settings=settings), folder / "run").folder


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "new.csv"
    rows = [("note", "text", "label"), ("old", OLD, "")]
    rows += [("done", sentences(1)[0], "good")]
    rows += [("again", f"{sentences(1)[0]}!", "")]
    rows += [("new", text, "") for text in sentences(12)[1:]]
    rows += [("copy", sentences(12)[11].upper(), ""), ("blank", "", "")]
    with path.open("w", newline="") as opened:
        csv.writer(opened).writerows(rows)
    return path


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as opened:
        return list(csv.DictReader(opened))


@pytest.mark.parametrize("strategy", ["auto", "margin", "entropy", "diverse", "random"])
def test_rows_to_label_are_new_different_and_ranked(
    strategy: str, tiny_run: Path, file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.csv"
    found = select(tiny_run, file, 5, out, strategy=strategy)
    rows = read(out)
    assert list(rows[0]) == ["note", "text", "label", "rank", "uncertainty", "why"]
    assert [row["rank"] for row in rows] == list("12345")
    assert {row["note"] for row in rows} <= {"new", "copy"}
    assert {row["label"] for row in rows} == {""}
    assert len({row["text"].lower() for row in rows}) == 5
    assert found.candidates == 11
    assert found.left_out == {
        "has an answer": 1, "says nothing": 1, "as a labelled text, or nearly": 2,
        "nearly as another one": 1,
    }  # fmt: skip
    scores = [row.uncertainty for row in found.rows]
    if strategy == "random":
        assert set(scores) == {None}
    else:
        assert scores == sorted(scores, reverse=True)
        assert all(re.match(r"(good|bad) [01]\.\d\d, (good|bad) ", row["why"]) for row in rows)


def test_the_uncertainty_is_of_the_labels_probabilities(
    tiny_run: Path, file: Path, tmp_path: Path
) -> None:
    found = select(tiny_run, file, 3, tmp_path / "out.csv", strategy="margin")
    for row in found.rows:
        first, second = (float(part.split()[1]) for part in row.why.split(", "))
        assert row.uncertainty == pytest.approx(1 - (first - second), abs=0.011)


def test_the_same_is_chosen_again_and_chance_by_its_seed(
    tiny_run: Path, file: Path, tmp_path: Path
) -> None:
    places = [tmp_path / f"{number}.csv" for number in range(5)]
    for place, (strategy, seed) in zip(
        places, [("diverse", None), ("diverse", None), *[("random", s) for s in (1, 1, 2)]],
        strict=True,
    ):  # fmt: skip
        select(tiny_run, file, 4, place, strategy=strategy, seed=seed)
    one, again, first, same, other = (place.read_bytes() for place in places)
    assert one == again
    assert first == same != other


def test_once_filled_in_it_is_run_together_with_the_old_file(
    tiny_run: Path, file: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "labelled"
    folder.mkdir()
    shutil.copy(load_recipe(tiny_run / "recipe.yaml").data.train, folder)
    file.write_text("text\n" + "\n".join(sentences(12)) + "\n")  # without a column for labels
    select(tiny_run, file, 4, folder / "more.csv")
    rows = read(folder / "more.csv")
    assert list(rows[0]) == ["text", "label", "rank", "uncertainty", "why"]
    with (folder / "more.csv").open("w", newline="") as opened:
        writer = csv.DictWriter(opened, list(rows[0]))
        writer.writeheader()
        writer.writerows({**row, "label": "good"} for row in rows)
    prepared = prepare(load_recipe(settings={"data": {"train": str(folder)}}), Silent())
    assert prepared.task == "classify"
    assert prepared.labels == ("bad", "good")
    assert sum(map(len, prepared.parts.named().values())) == 80 + 4


def test_nothing_is_overwritten_and_nothing_chosen_where_there_is_nothing(
    tiny_run: Path, file: Path, tmp_path: Path
) -> None:
    with pytest.raises(KilotuneError, match="the file exists"):
        select(tiny_run, file, 5, file)
    with pytest.raises(KilotuneError, match="no strategy 'likelihood' where the task is classify"):
        select(tiny_run, file, 5, tmp_path / "out.csv", strategy="likelihood")
    file.write_text(f"text,label\n{OLD},\nanother,good\n")
    with pytest.raises(KilotuneError, match="no row is left to be labelled"):
        select(tiny_run, file, 5, tmp_path / "out.csv")
    assert list(tmp_path.iterdir()) == [file]


def test_a_run_whose_training_file_is_gone_still_chooses(
    tiny_run: Path, file: Path, tmp_path: Path
) -> None:
    said: list[str] = []

    class Told(Silent):
        def say(self, line: str) -> None:
            said.append(line)

    run = shutil.copytree(tiny_run, tmp_path / "run")
    recipe = run / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("films.csv", "moved.csv"))
    found = select(run, file, 20, tmp_path / "out.csv", strategy="random", progress=Told())
    assert OLD in {row.text for row in found.rows}
    assert any("moved.csv" in line for line in said)


def test_the_command_shows_a_table_and_writes_into_the_current_folder(
    tiny_run: Path, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["select", str(tiny_run), str(file), "-n", "3"])
    assert result.exit_code == 0, result.output
    assert "3 of 11 rows chosen (entropy): new-to-label.csv" in result.stdout
    assert "left out (has an answer): 1" in result.stderr
    assert len(read(tmp_path / "new-to-label.csv")) == 3
    arguments = ["select", str(tiny_run), str(file), "-n", "3", "-o", "b.jsonl", "--json"]
    document = json.loads(CliRunner().invoke(app, arguments).stdout)
    assert [row["row"] for row in document["rows"]]
    assert json.loads(Path("b.jsonl").read_text().splitlines()[0])["label"] == ""


def test_free_answers_are_chosen_by_the_loss_of_the_greedy_answer(
    free_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses: list[float] = []
    whole = Prompting.losses

    def kept(self, *arguments):  # type: ignore[no-untyped-def]
        losses.extend(whole(self, *arguments))
        return losses

    monkeypatch.setattr(Prompting, "losses", kept)
    path = tmp_path / "new.jsonl"
    path.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in sentences(8)))
    found = select(free_run, path, 3, tmp_path / "out.jsonl", strategy="likelihood")
    assert [row.uncertainty for row in found.rows] == pytest.approx(
        sorted(losses, reverse=True)[:3], abs=1e-6
    )
    first = json.loads((tmp_path / "out.jsonl").read_text().splitlines()[0])
    assert list(first) == ["prompt", "completion", "rank", "uncertainty", "why"]

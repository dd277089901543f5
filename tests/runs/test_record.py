import json
import math
from pathlib import Path

import pytest

from kilotune.data.example import Example, Message, Origin
from kilotune.errors import KilotuneError
from kilotune.evaluation.confidence import Guess
from kilotune.recipe.difference import binding_settings
from kilotune.recipe.load import load_recipe
from kilotune.runs.cost import Cost
from kilotune.runs.documents import DataDocument, IdentityDocument
from kilotune.runs.record import (
    METRICS,
    VALIDATION,
    RunFolder,
    check_new,
    create_run,
    fingerprint,
)
from kilotune.runs.schema_version import Document
from kilotune.runs.stage_store import Stage, StageStore, Told
from kilotune.runs.trials import Trial, TrialStore, Unit
from tests.support.records import DOCUMENTS, predictions


def test_nothing_is_ever_overwritten(tmp_path: Path) -> None:
    out = tmp_path / "run"
    create_run(out, "x")
    (out / "mine").write_text("kept")
    with pytest.raises(KilotuneError, match="left as it is") as caught:
        create_run(out, "x")
    assert "kilotune resume" not in caught.value.fix  # it is no run
    (out / "recipe.yaml").touch()
    with pytest.raises(KilotuneError, match="left as it is") as caught:
        create_run(out, "x")
    assert f"kilotune resume {out}" in caught.value.fix
    with pytest.raises(KilotuneError, match="left as it is"):
        check_new(out / "mine")
    assert (out / "mine").read_text() == "kept"


def test_runs_of_a_day_are_numbered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = [create_run(None, "films").path.name for _ in range(3)]
    assert names[0].endswith("-films")
    assert names[1:] == [f"{names[0]}-2", f"{names[0]}-3"]


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    folder = create_run(tmp_path / "run", "x")
    with (
        folder.writing(),
        pytest.raises(KilotuneError, match="locked: another kilotune process"),
        RunFolder(folder.path).writing(),
    ):
        pass
    with folder.writing():
        pass


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    folder = create_run(tmp_path / "run", "x")
    kept = IdentityDocument(settings={"kept": 1})
    folder.write(kept)
    with pytest.raises(TypeError):
        folder.write(IdentityDocument(settings={"bad": object()}))
    assert folder.read(IdentityDocument) == kept
    assert [path.name for path in folder.path.iterdir()] == ["identity.json"]


def test_recipe_and_predictions_come_back(tmp_path: Path) -> None:
    folder = create_run(tmp_path / "run", "x")
    recipe = load_recipe(settings={"data": {"train": str(tmp_path / "x.csv")}})
    folder.write_recipe(recipe)
    assert folder.read_recipe() == recipe
    rows = [{**row, "prompt": "a\nb"} for row in predictions({"data:2": "x"})]
    folder.write_predictions(rows)
    assert folder.read_predictions() == rows
    folder.write_predictions(predictions({"data:3": "x"}), VALIDATION)
    assert [row["id"] for row in folder.read_predictions(VALIDATION)] == ["data:3"]


def test_a_step_logged_twice_counts_once(tmp_path: Path) -> None:
    folder = create_run(tmp_path / "run", "x")
    assert folder.read_metrics() == []
    for line in ({"step": 1, "loss": 2.0}, {"step": 1, "eval_loss": 1.0}, {"step": 1, "loss": 3.0}):
        folder.append_metrics(line)
    assert folder.read_metrics() == [{"step": 1, "loss": 3.0}, {"step": 1, "eval_loss": 1.0}]


def test_a_torn_line_of_the_log_goes_when_the_next_is_written(tmp_path: Path) -> None:
    folder = create_run(tmp_path / "run", "x")
    folder.append_metrics({"step": 1, "loss": 2.0})
    log = folder / "metrics.jsonl"
    whole = log.read_bytes()
    for torn in (b"{", b'{"step": 2, "lo', b'{"step": 2, "loss": 1.0}'):
        log.write_bytes(whole + torn)
        folder.append_metrics({"step": 3, "loss": 1.5})
        assert log.read_bytes() == whole + b'{"schema_version": 2, "step": 3, "loss": 1.5}\n'
    log.write_bytes(b'{"st')
    folder.append_metrics({"step": 3, "loss": 1.5})
    assert log.read_bytes() == b'{"schema_version": 2, "step": 3, "loss": 1.5}\n'


@pytest.mark.parametrize("left", [[], ["run.lock"], ["run.lock", ".recipe.yaml.77.part"],
                                  ["run.lock", "folds.json"]])  # fmt: skip
def test_a_folder_in_which_nothing_was_begun_is_as_good_as_new(
    tmp_path: Path, left: list[str]
) -> None:
    for name in left:
        (tmp_path / name).touch()
    assert create_run(tmp_path, "x").path == tmp_path
    with pytest.raises(KilotuneError, match="before anything was written"):
        RunFolder(tmp_path).read_recipe()


def test_a_run_is_finished_with_its_report_and_judged_with_its_verdict(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    states = [(folder.judged, folder.finished)]
    for name in ("verdict.json", "report.html"):
        (tmp_path / name).touch()
        states.append((folder.judged, folder.finished))
    assert states == [(False, False), (True, False), (True, True)]


def test_a_run_is_held_to_its_recipe_wherever_its_files_lie(tmp_path: Path) -> None:
    folder = create_run(tmp_path / "run", "x")
    recipe = load_recipe(settings={"data": {"train": "/a/x.csv"}})
    folder.write_recipe(recipe)
    folder.note_identity(settings=binding_settings(recipe))
    file = folder / "recipe.yaml"
    written = file.read_text()
    file.write_text(written.replace("/a/x.csv", "/b/y.csv").replace("smollm2", "/models/smollm2"))
    assert str(folder.read_recipe().data.train) == "/b/y.csv"
    for old, new in (("seed: 0", "seed: 1"), ("method: lora", "method: dora")):
        file.write_text(written.replace(old, new))
        changed = f"{old.replace(': ', ' was ')}, is {new.split()[-1]}"
        with pytest.raises(KilotuneError, match=f"not the recipe .*{changed}"):
            folder.read_recipe()


def test_damaged_and_missing_records_are_clear_errors(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    (tmp_path / "data.json").write_text("{")
    with pytest.raises(KilotuneError, match="not a run folder"):
        folder.read_recipe()
    with pytest.raises(KilotuneError, match=r"data\.json is damaged \(no JSON"):
        folder.read(DataDocument)


def log(folder: RunFolder, text: str) -> list[dict[str, float]]:
    (folder / METRICS).write_bytes(text.encode())
    return folder.read_metrics()


ONE, TWO = '{"step": 1, "loss": 2.0}\n', '{"step": 2, "loss": 1.0}\n'


def test_what_a_killed_process_left_of_a_last_line_counts_for_nothing(tmp_path: Path) -> None:
    folder = create_run(tmp_path / "run", "x")
    for torn in (TWO[:-1], TWO[:9], "\0\0\0", TWO[:9] + "\n", "[1]\n"):
        assert log(folder, ONE + torn) == [{"step": 1, "loss": 2.0}]
    assert log(folder, TWO[:9]) == log(folder, "") == []


def test_a_damaged_line_of_the_log_is_named(tmp_path: Path) -> None:
    folder = create_run(tmp_path / "run", "x")
    for damaged in (TWO[:9] + "\n", "[1]\n", '{"loss": 1.0}\n', '{"step": 2, "loss": "1"}\n', "\n"):
        with pytest.raises(KilotuneError, match=r"metrics\.jsonl: line 2 is damaged"):
            log(folder, ONE + damaged + TWO)


def test_numbers_that_are_none_come_back_as_they_were(tmp_path: Path) -> None:
    folder = create_run(tmp_path / "run", "x")
    folder.append_metrics({"step": 1, "loss": math.nan})
    (line,) = folder.read_metrics()
    assert math.isnan(line["loss"])


def test_the_fingerprint_follows_content_not_place() -> None:
    def example(text: str, file: str) -> Example:
        return Example("data:1", (Message("user", text),), Origin(file, 1), "a")

    assert fingerprint([example("x", "a.csv")]) == fingerprint([example("x", "b.csv")])
    assert fingerprint([example("x", "a.csv")]) != fingerprint([example("y", "a.csv")])
    assert json.dumps(fingerprint([]))


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_a_record_of_another_form_is_one_clear_error(kind: type[Document], tmp_path: Path) -> None:
    folder, name = RunFolder(tmp_path), kind.FILE
    for text in ("", "{", "null", "3", '"text"', '[{"a": 1}]', '{"a": []}', "[" * 10**5, "\xff"):
        (tmp_path / name).write_text(text, encoding="latin-1")
        if (name, text) in (("identity.json", '{"a": []}'),):
            continue  # nothing is asked of it
        with pytest.raises(KilotuneError, match=rf"{name} is damaged \(") as caught:
            folder.read(kind)
        assert "\n" not in str(caught.value)
        assert caught.value.where == str(tmp_path)


def test_a_damaged_trial_or_stage_is_one_clear_error(tmp_path: Path) -> None:
    recipe = load_recipe(settings={"data": {"train": str(tmp_path / "x.csv")}})
    trials, stages = TrialStore(tmp_path / "trials", "f"), StageStore(tmp_path / "stages", recipe)
    unit, stage, cost = Unit(0, 0), Stage(0, 0, 0), Cost(1.0, 2, 3)
    trial = Trial(unit, {"a": 1.0}, {"a": "x"}, {}, (math.nan,), (), cost)
    told = Told({"a": 1.0}, {"a": "x"}, {"a": Guess("x", (math.nan, 0.0), 0)}, {}, 0, 1, cost)
    trials.keep(recipe, trial)
    stages.keep(stage, "m", told)
    (trial_file,), (stage_file,) = trials.folder.iterdir(), stages.folder.iterdir()
    found = stages.find(stage, "m")
    assert found is not None
    assert math.isnan(found.held_out["a"].logits[0])
    for text in ("", "{", "[]", "null", "{}", trial_file.read_text().replace('"x"', "1")):
        trial_file.write_text(text)
        stage_file.write_text(text)
        with pytest.raises(KilotuneError, match="the record of a trial is damaged"):
            trials.find(recipe, unit)
        with pytest.raises(KilotuneError, match="the record of a tuning is damaged"):
            stages.find(stage, "m")

"""`kilotune decode` on a tiny run: what is chosen is kept, recorded, and used from then on."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import kilotune
from kilotune.errors import KilotuneError
from kilotune.evaluation import decoding_race
from kilotune.evaluation.decoding_race import DecodingChoice
from kilotune.recipe.schema import DecodingSettings
from kilotune.runs.outcomes import JudgementDocument
from kilotune.runs.record import RunFolder
from kilotune.workflows import decode as decoding
from kilotune.workflows.decode import decode
from kilotune.workflows.predict import predict
from tests.support.noted import Noted
from tests.support.records import written

FEW = [DecodingSettings(max_new_tokens=9, temperature=t) for t in (0.0, 0.3, 1.0)]


@pytest.fixture
def run(tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(decoding_race, "candidates", lambda limits: FEW)
    return shutil.copytree(tiny_run, tmp_path / "run")


def config(run: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((run / "adapter" / "generation_config.json").read_text())
    return found


def test_greedy_stays_for_a_model_that_knows_the_answers_and_all_is_recorded(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding_race, "ENOUGH", 2)
    before = config(run)
    choice = decode(run)
    assert choice.chosen == FEW[0]
    assert choice.reason.startswith("greedy decoding stays")
    assert {**before, "max_new_tokens": 9} == config(run)
    on_record = written(run, "decoding.json")
    assert on_record["chosen"]["temperature"] == 0
    assert on_record["answers"] == choice.answers
    # 13 validation examples: six for the race, and seven to decide.
    assert [(r["examples"], r["seeds"]) for r in on_record["rounds"]] == [(4, 1), (6, 3)]
    assert (on_record["raced"], on_record["decided"]) == (6, 7)
    assert set(on_record["proof"]) == {"temperature 0.3", "temperature 1"}


def test_what_is_chosen_is_used_by_chat_and_predict_and_gives_the_same_twice(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hot = DecodingSettings(max_new_tokens=9, temperature=1.0, top_k=20)
    chosen = DecodingChoice(hot, "because", (), {}, 6, 7, 0)
    monkeypatch.setattr(decoding, "choose", lambda *_: chosen)
    decode(run)
    assert kilotune.chat(run).settings == hot
    file = tmp_path / "new.csv"
    file.write_text("text\n" + "a film was great\n" * 30)
    for name in ("one.csv", "two.csv"):
        predict(run, file, tmp_path / name)
    assert (tmp_path / "one.csv").read_bytes() == (tmp_path / "two.csv").read_bytes()


def test_changed_data_are_refused(run: Path) -> None:
    recipe = RunFolder(run).read_recipe()
    before = recipe.data.train.read_text()
    try:
        recipe.data.train.write_text(before + "one more,good\n")
        with pytest.raises(KilotuneError, match="data have changed"):
            decode(run)
    finally:
        recipe.data.train.write_text(before)


def test_the_model_that_is_asked_has_not_seen_validation(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged = RunFolder(run).read(JudgementDocument)
    assert judged.refit is not None
    asked: list[Path | None] = []
    opened = decoding.open_tuned

    def noted(*arguments: Any, adapter: Path | None, **more: Any) -> Any:
        asked.append(adapter)
        return opened(*arguments, adapter=adapter, **more)

    monkeypatch.setattr(decoding, "open_tuned", noted)
    decode(run)
    checkpoint = run / "checkpoints" / f"checkpoint-{judged.tuning.best_step}"
    shutil.rmtree(checkpoint)
    said = Noted()
    decode(run, said)
    assert asked == [checkpoint, None]
    assert any(line.startswith("warning: the final model is asked") for line in said.lines)

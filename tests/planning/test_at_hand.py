"""Models on a machine, told from their folders alone."""

import json
import shutil
from pathlib import Path

import pytest

from kilotune.planning import at_hand
from kilotune.planning.at_hand import ModelAtHand, is_here, models_at_hand, suited
from kilotune.preparation.prepare import Prepared, prepare
from kilotune.progress import Silent
from tests.support.planned import recipe_of


@pytest.fixture(autouse=True)
def nothing_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(at_hand, "cache_folder", lambda: tmp_path / "nowhere")
    monkeypatch.setattr(at_hand, "_cached", list)


def prepared_of(data: Path, model: Path) -> Prepared:
    return prepare(recipe_of(data, model), Silent())


def test_the_models_here_are_held_against_memory_and_writing(
    labelled: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = prepared_of(labelled, tiny_model)
    (found,) = models_at_hand(prepared)
    assert is_here(prepared)
    assert found.name == str(tiny_model)
    assert found.tokens == 100  # every byte is a token
    assert (found.pieces, found.fits, found.why) == (0.0, True, "")
    assert found.parameters is not None
    assert 30_000 < found.parameters < 60_000
    monkeypatch.setattr(at_hand, "available_bytes", lambda: 1000)
    (found,) = models_at_hand(prepared)
    assert not found.fits


def test_writing_that_a_tokenizer_spells_byte_by_byte_is_counted(
    tiny_model: Path, tmp_path: Path
) -> None:
    data = tmp_path / "rows.csv"
    rows = "".join(f"第{n}部电影很{'好看' if n % 2 else '糟糕'},{n % 2}\n" for n in range(40))
    data.write_text("text,label\n" + rows)
    (found,) = models_at_hand(prepared_of(data, tiny_model))
    assert found.pieces is not None
    assert found.pieces > 0.8
    assert suited([found]) == []


def test_what_is_not_whole_is_not_at_hand_and_what_cannot_be_read_is_said(
    labelled: Path, tiny_model: Path, tmp_path: Path
) -> None:
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    settings = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**settings, "model_type": "of tomorrow"}))
    (found,) = models_at_hand(prepared_of(labelled, model))
    assert found.memory is None
    assert "of tomorrow" in found.why
    (model / "model.safetensors").unlink()
    assert not is_here(prepared_of(labelled, model))


def test_those_that_fit_and_take_few_tokens_are_suited() -> None:
    models = [
        ModelAtHand("short", 1, 1, True, 20.0, 0.0),
        ModelAtHand("close", 1, 1, True, 29.0, 0.02),
        ModelAtHand("long", 1, 1, True, 40.0, 0.0),
        ModelAtHand("large", 1, 1, False, 20.0, 0.0),
        ModelAtHand("unknown", why="broken"),
    ]
    assert [one.name for one in suited(models)] == ["short", "close"]
    assert suited([]) == []

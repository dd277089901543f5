import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import TrainerState

from kilotune.training.checkpoints import SEAL, newest_whole, rotate, seal
from tests.training.test_trainer import Trial, recipe


def checkpoint(folder: Path, step: int, best: int = 0) -> Path:
    """One with two files and a state that says which was the best."""
    made = folder / f"checkpoint-{step}"
    made.mkdir(parents=True)
    (made / "weights").write_bytes(bytes([step]) * 100)
    state = TrainerState(global_step=step, best_global_step=best or None)
    state.save_to_json(str(made / "trainer_state.json"))
    seal(made)
    return made


def gone(path: Path) -> None:
    path.unlink()


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def another(path: Path) -> None:
    path.write_text("[1, 2]")


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES = [gone, emptied, cut, flipped, another, a_folder]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["weights", "trainer_state.json", SEAL])
def test_a_damaged_checkpoint_is_left_out_for_an_older_whole_one(
    tmp_path: Path, name: str, damage: Callable[[Path], None]
) -> None:
    older, newer = checkpoint(tmp_path, 7), checkpoint(tmp_path, 14)
    assert newest_whole(tmp_path, lambda line: None) == newer
    damage(newer / name)
    said: list[str] = []
    assert newest_whole(tmp_path, said.append) == older
    (line,) = said
    assert line.startswith("skipping checkpoint-14: ")
    assert name == SEAL or name in line
    assert newer.exists()  # nothing goes before a newer one is sealed


def test_a_checkpoint_whose_best_is_damaged_is_left_out_too(tmp_path: Path) -> None:
    first, best = checkpoint(tmp_path, 7, best=7), checkpoint(tmp_path, 14, best=14)
    checkpoint(tmp_path, 21, best=14)
    flipped(best / "weights")
    said: list[str] = []
    assert newest_whole(tmp_path, said.append) == first
    assert [line.partition(":")[0] for line in said] == [
        "skipping checkpoint-21",
        "skipping checkpoint-14",
    ]
    assert "its best, checkpoint-14, is damaged" in said[0]


def test_without_a_whole_checkpoint_training_begins_anew(tmp_path: Path) -> None:
    assert newest_whole(tmp_path / "nowhere", lambda line: None) is None
    half = tmp_path / "checkpoint-7"
    half.mkdir()
    (half / "trainer_state.json").touch()
    said: list[str] = []
    assert newest_whole(tmp_path, said.append) is None
    assert said == ["skipping checkpoint-7: incomplete, it has no sealed.json"]


def test_folders_of_other_names_are_let_be(tmp_path: Path) -> None:
    whole = checkpoint(tmp_path, 7)
    shutil.copytree(whole, tmp_path / "checkpoint-abc")
    assert newest_whole(tmp_path, lambda line: None) == whole
    assert (tmp_path / "checkpoint-abc").is_dir()


@pytest.mark.parametrize(
    ("steps", "kept"),
    [
        ([(7, 7)], [7]),
        ([(7, 7), (14, 7), (21, 7)], [7, 21]),
        # 14 cannot be gone on from without 7, which needs no other.
        ([(7, 7), (14, 7), (21, 21)], [7, 21]),
        ([(7, 7), (14, 14), (21, 21)], [14, 21]),
        ([(7, 0), (14, 0), (21, 0)], [14, 21]),  # nothing to be the best by
    ],
)
def test_what_is_kept_is_enough_to_go_on_should_the_newest_be_damaged(
    tmp_path: Path, steps: list[tuple[int, int]], kept: list[int]
) -> None:
    for step, best in steps:
        rotate(checkpoint(tmp_path, step, best))
    assert {path.name for path in tmp_path.iterdir()} == {f"checkpoint-{step}" for step in kept}
    flipped(tmp_path / f"checkpoint-{kept[-1]}" / "weights")
    left = newest_whole(tmp_path, lambda line: None)
    assert left == (tmp_path / f"checkpoint-{kept[0]}" if len(kept) > 1 else None)


def test_checkpoints_that_were_skipped_go_once_their_steps_are_done_again(tmp_path: Path) -> None:
    checkpoint(tmp_path, 7, best=7)
    (checkpoint(tmp_path, 21, best=21) / SEAL).unlink()
    rotate(checkpoint(tmp_path, 14, best=14))
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint-7", "checkpoint-14"}


def test_a_step_that_is_saved_twice_is_sealed_anew(tmp_path: Path) -> None:
    made = checkpoint(tmp_path, 7)
    (made / "weights").write_text("other")
    seal(made)
    assert newest_whole(tmp_path, lambda line: None) == made
    assert SEAL not in json.loads((made / SEAL).read_text())


class Killed(BaseException):
    """Stands for the end of the process."""


def test_a_training_killed_before_a_seal_ends_like_an_uninterrupted_one(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Trial(tiny_model, tmp_path / "whole", recipe())
    expected = whole.run()
    sealed: list[Path] = []

    def dies(made: Path) -> None:
        if sealed:
            raise Killed
        sealed.append(made)
        seal(made)

    parts = Trial(tiny_model, tmp_path / "parts", recipe())
    with monkeypatch.context() as patch:
        patch.setattr("kilotune.training.trainer.seal", dies)
        with pytest.raises(Killed):
            parts.run()
    assert sorted(os.listdir(tmp_path / "parts")) == ["checkpoint-3", "checkpoint-6"]
    resumed = Trial(tiny_model, tmp_path / "parts", recipe(), [0.2, 0.3])
    tuning = resumed.run()
    assert (tuning.steps, tuning.best_step) == (expected.steps, expected.best_step)
    assert len(resumed.losses()) == 6
    assert torch.equal(resumed.flat(), whole.flat())
    assert tuning.gradients == expected.gradients

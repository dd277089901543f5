"""Checkpoints that are whole, or count for nothing: digests of their files, written last."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from transformers import TrainerState
from transformers.trainer import TRAINER_STATE_NAME

from kilotune.data.files.writers import on_disk, to_json, write_atomically
from kilotune.system.digests import sha256_of

# What marks a checkpoint as complete. The Trainer's own state file does not: it is opened before
# it is written, and what stands beside it may not be on the disk yet.
SEAL = "sealed.json"
FOLDER = re.compile(r"checkpoint-(\d+)")


def seal(checkpoint: Path) -> None:
    """Mark `checkpoint` as complete: every file of it on the disk, then their digests."""
    on_disk(checkpoint)
    digests = {
        path.relative_to(checkpoint).as_posix(): sha256_of(path) for path in _files(checkpoint)
    }
    write_atomically(checkpoint / SEAL, to_json(digests) + "\n")


def newest_whole(folder: Path, say: Callable[[str], None]) -> Path | None:
    """The newest checkpoint in `folder` from which a training goes on as if it had not stopped.

    It and its best one are as they were sealed; what is wrong with newer ones is said. None where
    there is no such checkpoint.
    """
    for checkpoint in reversed(_by_step(folder)):
        if not (fault := _fault(checkpoint)):
            return checkpoint
        say(f"skipping {checkpoint.name}: {fault}")
    return None


def rotate(newest: Path) -> None:
    """Remove the checkpoints that are not needed any more, now that `newest` is sealed.

    It and its best one are kept. Where they are one, so is the newest before it that needs no
    other: training goes on from there, should `newest` be damaged.
    """
    every = _by_step(newest.parent)
    best = _needs(newest) or newest
    kept = {newest, best}
    if best == newest:
        before = every[: every.index(newest)]
        alone = [path for path in before if (path / SEAL).exists() and _needs(path) in (None, path)]
        kept |= set(alone[-1:])
    for path in every:
        if path not in kept:
            shutil.rmtree(path)


def find_best(state: TrainerState, folder: Path) -> Path | None:
    """The best checkpoint so far, which `state` names by where it was written: a run may move."""
    if not state.best_global_step:
        return None
    best = folder / f"checkpoint-{state.best_global_step}"
    state.best_model_checkpoint = str(best)
    return best


def _fault(checkpoint: Path) -> str:
    """Why nothing can go on from `checkpoint`; empty where it can."""
    if fault := _damage(checkpoint):
        return fault
    best = _needs(checkpoint)
    damage = _damage(best) if best else ""
    return f"its best, {best.name}, is damaged ({damage})" if best and damage else ""


def _needs(checkpoint: Path) -> Path | None:
    """The best checkpoint that a training which goes on from `checkpoint` may end with."""
    return find_best(_state(checkpoint), checkpoint.parent)


def _state(checkpoint: Path) -> TrainerState:
    return TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))


def _by_step(folder: Path) -> list[Path]:
    """The checkpoints in `folder`, the oldest first; what is called otherwise is none."""
    found = {int(m[1]): p for p in folder.glob("*") if (m := FOLDER.fullmatch(p.name))}
    return [found[step] for step in sorted(found)]


def _damage(checkpoint: Path) -> str:
    """What of `checkpoint` is not as it was sealed; empty where nothing is."""
    try:
        digests = json.loads((checkpoint / SEAL).read_text(encoding="utf-8"))
        wrong = [name for name, known in digests.items() if sha256_of(checkpoint / name) != known]
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        lost = Path(str(error.filename)).name
        return f"incomplete, it has no {SEAL}" if lost == SEAL else f"{lost} is missing"
    except (ValueError, AttributeError, TypeError):  # not JSON, or of another form
        return f"{SEAL} is damaged"
    return f"{wrong[0]} is damaged" if wrong else ""


def _files(checkpoint: Path) -> Iterator[Path]:
    """All but a seal of before: a step that is saved twice is sealed anew."""
    return (p for p in sorted(checkpoint.rglob("*")) if p.is_file() and p.name != SEAL)

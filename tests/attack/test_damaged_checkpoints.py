"""A damaged checkpoint is noticed, said, and passed over for an older one: the end is the same."""

import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.attack.damages import FORMS
from tests.attack.equal import differences
from tests.attack.scenes import SCENES, Stage
from tests.attack.zygote import Done

pytestmark = pytest.mark.slow

# Read by nobody: what a training goes by is in the recipe.
UNREAD = ("README.md", "training_args.bin", "adapter_config.json")


def checkpoints(case: Path) -> list[Path]:
    """The oldest first."""
    found = (case / "work" / "run" / "checkpoints").glob("checkpoint-*")
    return sorted(found, key=lambda path: int(path.name.partition("-")[2]))


def resumed(stage: Stage, case: Path, *, said: str) -> Iterable[str]:
    """What is wrong with the resumed run of `case`, whose output is to hold `said`."""
    expected, _ = stage.undisturbed(SCENES["run"])
    done: Done = stage.do(["resume", "run"], case)
    if done.status:
        yield f"status {done.status}: {done.output.rstrip().splitlines()[-1]}"
    if "Traceback (most recent call last)" in done.output:
        yield "a traceback"
    if said not in done.output:
        yield f"no word of {said}"
    yield from differences(expected, case)
    shutil.rmtree(case)


def damaged(stage: Stage, name: str, form: str) -> list[str]:
    """What is wrong after the file `name` of the last checkpoint was damaged."""
    case = stage.case(f"{form}-{name}", SCENES["resume"])
    last = checkpoints(case)[-1]
    FORMS[form](last / name)
    said = "" if name in UNREAD else last.name
    return [f"{name} {form}: {line}" for line in resumed(stage, case, said=said)]


@pytest.mark.parametrize(
    ("name", "form"),
    [("trainer_state.json", "emptied"), ("adapter_model.safetensors", "cut"),
     ("optimizer.pt", "removed")],
)  # fmt: skip
def test_a_damaged_checkpoint_is_passed_over(stage: Stage, name: str, form: str) -> None:
    faults = damaged(stage, name, form)
    assert not faults, "\n".join(faults)


@pytest.mark.long
@pytest.mark.parametrize("form", FORMS)
def test_each_file_of_a_checkpoint_may_be_damaged(stage: Stage, form: str) -> None:
    folder = stage.half / "checkpoints"
    last = max(folder.iterdir(), key=lambda path: int(path.name.partition("-")[2]))
    names = [path.name for path in last.iterdir()]
    assert len(names) >= 7
    faults = [line for name in sorted(names) for line in damaged(stage, name, form)]
    assert not faults, "\n".join(faults)


@pytest.mark.long
def test_with_no_whole_checkpoint_the_training_begins_anew(stage: Stage) -> None:
    case = stage.case("none-whole", SCENES["resume"])
    for folder in checkpoints(case):
        FORMS["cut"](folder / "adapter_model.safetensors")
    faults = list(resumed(stage, case, said=checkpoints(case)[0].name))
    assert not faults, "\n".join(faults)


@pytest.mark.long
def test_a_folder_that_only_looks_like_a_checkpoint_is_none(stage: Stage) -> None:
    case = stage.case("no-checkpoint", SCENES["resume"])
    last = checkpoints(case)[-1]
    stranger = last.with_name("checkpoint-abc")
    shutil.copytree(last, stranger)
    expected, _ = stage.undisturbed(SCENES["run"])
    done = stage.do(["resume", "run"], case)
    assert (done.status, "Traceback" in done.output) == (0, False), str(done)
    shutil.rmtree(stranger, ignore_errors=True)  # the user's, or not: it may stay
    assert differences(expected, case) == []

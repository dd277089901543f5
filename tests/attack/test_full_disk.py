"""A full disk is one line that names the file; with room made, the end is the same."""

import pytest

from tests.attack.full_disk import fill_disk, may_mount
from tests.attack.scenes import SCENES, Stage

pytestmark = pytest.mark.slow

KIB = 1024
# From before the recipe is written to within the report: the records are about 1.5 MB without it.
SIZES = tuple(kib * KIB for kib in (8, 24, 48, 96, 160, 300, 480, 700, 1000, 2500))
SAME_UNCACHED = ("adapter/adapter_model.safetensors", "verdict.json", "findings.json", "data.json")
OTHERS = [("predict", 4), ("augment", 4), ("fix", 4), ("convert", 4), ("export", 60), ("vllm", 60),
    ("report", 7000)]  # fmt: skip


def check(stage: Stage, scene: str, size: int, *, full: str = "work", mounted: bool) -> None:
    name = f"full-{scene}-{size}-{full}-{mounted}"
    done, faults = fill_disk(stage, name, SCENES[scene], size, full=full, mounted=mounted)
    said = "\n".join(map(str, done))
    assert not faults, "\n".join([*faults, said])


@pytest.mark.long
@pytest.mark.parametrize("size", SIZES)
def test_a_run_on_a_full_disk_ends_the_same_when_there_is_room(stage: Stage, size: int) -> None:
    check(stage, "run", size, mounted=may_mount())


@pytest.mark.long
@pytest.mark.parametrize("size", [0, 100, 3000, 40_000, 60_000])
def test_files_that_may_not_grow_are_a_full_disk_too(stage: Stage, size: int) -> None:
    check(stage, "run", size, mounted=False)


@pytest.mark.long
@pytest.mark.parametrize(("scene", "kib"), OTHERS)
def test_other_commands_on_a_full_disk(stage: Stage, scene: str, kib: int) -> None:
    check(stage, scene, kib * KIB, mounted=may_mount())


@pytest.mark.long
@pytest.mark.parametrize("kib", [4, 300])
def test_a_full_cache_is_said_and_gone_without(stage: Stage, kib: int) -> None:
    # What is not cached is computed in other batches, and rounds as they do.
    uncached, _ = stage.undisturbed(SCENES["uncached"])
    case = stage.root / f"full-cache-{kib}"
    (done,), _ = fill_disk(
        stage, case.name, SCENES["run"], kib * KIB, full="cache", mounted=may_mount()
    )
    assert done.status == 0, str(done)
    assert "Without the hidden-state cache: " in done.output, done.output
    assert "Traceback" not in done.output
    for name in SAME_UNCACHED:
        expected, found = (folder / "work" / "run" / name for folder in (uncached, case))
        assert found.read_bytes() == expected.read_bytes(), name


@pytest.mark.parametrize(("scene", "size"), [("convert", 10), ("fix", 300), ("run", 100)])
def test_a_full_disk_is_one_line(stage: Stage, scene: str, size: int) -> None:
    check(stage, scene, size, mounted=False)

"""A dozen kills: whatever is killed comes to the same when it is gone on with.

`make test-long` does some two hundred more (`test_kills_long.py`).
"""

import pytest

from tests.attack.kills import SOON, Kill, drawn, strike_all
from tests.attack.scenes import SCENES, Stage, advised
from tests.attack.strikes import Strike

pytestmark = pytest.mark.slow

FEW = {
    "run": {"audit": 2, "torn": 2, "event": 1, "TERM": 1},
    "predict": {"audit": 1},
    "augment": {"audit": 1},
    "fix": {"torn": 1},
    "convert": {"event": 1},
    "export": {"audit": 1},
    "report": {"torn": 1},
}  # fmt: skip


@pytest.mark.parametrize(
    ("scene", "kind", "count"),
    [(scene, kind, count) for scene, kinds in FEW.items() for kind, count in kinds.items()],
)
def test_what_was_killed_comes_to_the_same(stage: Stage, scene: str, kind: str, count: int) -> None:
    for number, kill in enumerate(drawn(stage, scene, kind, count, seed=1)):
        outcome = strike_all(stage, kill, f"few-{scene}-{kind}-{number}")
        assert outcome.struck, str(outcome)
        assert not outcome.faults, str(outcome)


@pytest.mark.parametrize("scene", ["convert", "augment", "workbook", "parquet", "fix", "pictures"])
def test_killed_before_any_of_its_operations_it_comes_to_the_same(stage: Stage, scene: str) -> None:
    _, undisturbed = stage.undisturbed(SCENES[scene])
    for at in range(1, len(undisturbed.operations) + 1):
        outcome = strike_all(stage, Kill(scene, (Strike("audit", at),)), f"every-{scene}-{at}")
        assert outcome.struck, str(outcome)
        assert not outcome.faults, str(outcome)


def test_killed_twice_between_files_that_belong_together(stage: Stage) -> None:
    _, undisturbed = stage.undisturbed(SCENES["augment"])
    second = [n for n, line in enumerate(undisturbed.operations, 1) if "os.rename" in line][1]
    strikes = (Strike("audit", second), Strike("audit", second - 1))
    outcome = strike_all(stage, Kill("augment", strikes), "twice")
    assert outcome.struck == 2, str(outcome)
    assert not outcome.faults, str(outcome)


def test_a_kill_is_said_so_that_it_can_be_repeated() -> None:
    strikes = (Strike("audit", 37), Strike("torn", 12, 20), Strike("time", 0.25))
    kill = Kill("run", strikes)
    assert str(kill) == "run audit:37 torn:12:20 time:0.25"
    assert tuple(map(Strike.parse, str(kill).split()[1:])) == strikes


def test_the_hook_strikes_before_the_very_operation(stage: Stage) -> None:
    scene = SCENES["convert"]
    _, undisturbed = stage.undisturbed(scene)
    kinds = [line.split()[0] for line in undisturbed.operations]
    assert kinds[:2] == ["open", "os.rename"]
    case = stage.case("before-the-rename", scene)
    done = stage.do(scene.argv(stage), case, Strike("audit", 2))
    assert (done.status, done.struck) == (-9, True)
    assert not (case / "work" / "films.jsonl.gz").exists()
    (part,) = (case / "work").glob(".films.jsonl.gz.*.part")
    assert part.read_bytes()[:2] == b"\x1f\x8b"  # written, and not yet named


def test_a_torn_file_has_the_bytes_that_it_was_left(stage: Stage) -> None:
    case = stage.case("torn-after-seven", SCENES["convert"])
    done = stage.do(SCENES["convert"].argv(stage), case, Strike("torn", 1, 7))
    assert (done.status, done.struck) == (-25, True)
    assert [path.stat().st_size for path in (case / "work").glob(".*.part")] == [7]


def test_an_interrupt_ends_soon_and_with_its_own_status(stage: Stage) -> None:
    case = stage.case("interrupted", SCENES["convert"])
    done = stage.do(SCENES["convert"].argv(stage), case, Strike("INT", 1))
    assert (done.status, done.struck) == (130, True)
    assert done.since < SOON
    assert not list((case / "work").iterdir())


def test_the_next_command_is_read_out_of_what_is_said() -> None:
    said = (
        "kilotune: run: exists already. Choose another --out, or go on with it: kilotune resume run"
    )
    assert advised(f"Reading\n{said}\n") == ["resume", "run"]
    assert advised("  Stopped; go on with: kilotune ablate a/b\nkilotune: interrupted\n") == [
        "ablate",
        "a/b",
    ]
    assert advised("kilotune: run: not a run folder. Give the folder of a run\n") is None

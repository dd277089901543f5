"""More than two hundred kills, of every command and kind: each ends as if nothing had been."""

from collections.abc import Iterator

import pytest

from tests.attack.kills import PLAN, drawn, strike_all
from tests.attack.scenes import Stage

pytestmark = pytest.mark.long
# Kills of one test: small enough to be shared out evenly between processes.
TOGETHER = 8


def portions() -> Iterator[tuple[str, str, int, int]]:
    """Scene, kind, and the first and last of its kills."""
    for scene, kinds in PLAN.items():
        for kind, count in kinds.items():
            for start in range(0, count, TOGETHER):
                yield scene, kind, start, min(start + TOGETHER, count)


def test_there_are_at_least_two_hundred() -> None:
    assert sum(end - start for _, _, start, end in portions()) >= 200


@pytest.mark.parametrize(("scene", "kind", "start", "end"), portions())
def test_what_was_killed_comes_to_the_same(
    stage: Stage, scene: str, kind: str, start: int, end: int
) -> None:
    kills = drawn(stage, scene, kind, PLAN[scene][kind], seed=0)[start:end]
    outcomes = [
        strike_all(stage, kill, f"long-{scene}-{kind}-{start + number}")
        for number, kill in enumerate(kills)
    ]
    assert all(outcome.struck for outcome in outcomes)
    wrong = [str(outcome) for outcome in outcomes if outcome.faults]
    assert not wrong, f"{len(wrong)} of {len(kills)}\n\n" + "\n\n".join(wrong)

"""Commands killed or interrupted, gone on with as kilotune's own messages say, and compared.

One alone, as a failure names it: `python -m tests.attack.kills run audit:37 torn:12:20`.
"""

import argparse
import random
import shutil
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from tests.attack.equal import differences
from tests.attack.scenes import SCENES, Scene, Stage, advised
from tests.attack.strikes import Strike
from tests.attack.zygote import Done

# Bytes that are still written of what is torn: none, the head of a file, more than one page.
TORN = (0, 1, 25, 300, 5000)
# Seconds that a command may take to stop when it is asked to.
SOON = 15.0
INTERRUPTED, UNUSABLE = 130, 2
COMPLETE = ("the run is finished", "left as it is")
STEPS = 6
TRIES = 5


@dataclass(frozen=True, slots=True)
class Kill:
    """A scene and what befalls it: the first strike its command, the others what follows."""

    scene: str
    strikes: tuple[Strike, ...]
    resumes: bool = True

    def __str__(self) -> str:
        how = "" if self.resumes else " --repeat"
        return f"{self.scene} {' '.join(map(str, self.strikes))}{how}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a killed command ended: what was given, how often it was struck, what is wrong."""

    kill: Kill
    done: tuple[Done, ...]
    faults: tuple[str, ...]

    @property
    def struck(self) -> int:
        return sum(done.struck for done in self.done)

    @property
    def heading(self) -> str:
        """How to repeat it, and what is wrong."""
        faults = "".join(f"\n  FAULT {fault}" for fault in self.faults)
        return f"python -m tests.attack.kills {self.kill}: struck {self.struck}{faults}"

    def __str__(self) -> str:
        return "\n".join([self.heading, *map(str, self.done if self.faults else ())])


def strike_all(stage: Stage, kill: Kill, name: str) -> Outcome:
    """Do what `kill` says in a new case, go on to the end, and compare.

    Where the command was over before it was struck, once more and earlier.
    """
    scene = SCENES[kill.scene]
    expected, _ = stage.undisturbed(SCENES[scene.like or scene.name])
    for earlier in range(TRIES):
        case = stage.case(f"{name}-{earlier}", scene)
        done = to_the_end(stage, scene, kill, case)
        if any(each.struck for each in done):
            break
        kill = replace(kill, strikes=(_earlier(kill.strikes[0]), *kill.strikes[1:]))
    faults = [fault for each in done for fault in _faults_of(each, scene)]
    faults += _begun_anew(done)
    faults += differences(expected, case)
    shutil.rmtree(case)
    return Outcome(kill, tuple(done), tuple(faults))


def _earlier(strike: Strike) -> Strike:
    # What else the machine does may have made the undisturbed one many times as long.
    n = round(strike.n * 0.5, 3) if strike.kind == "time" else max(1, int(strike.n * 0.7))
    return replace(strike, n=n, more=strike.more // 20)


def to_the_end(stage: Stage, scene: Scene, kill: Kill, case: Path) -> list[Done]:
    """Give the scene's command, then what kilotune says, as long as it says something new."""
    strikes, first = list(kill.strikes), scene.argv(stage)
    argv, tried, done = first, list[list[str]](), list[Done]()
    for _ in range(STEPS + len(strikes)):
        struck = _do(stage, scene, argv, case, strikes.pop(0) if strikes else None)
        done.append(struck)
        if struck.struck:
            tried = []
            argv = list(scene.again) if scene.again and kill.resumes else first
        elif struck.status in scene.ends or _is_complete(struck):
            break
        else:
            tried.append(argv)
            argv = advised(struck.output) or first
        if argv in tried:
            break
    return done


def _is_complete(done: Done) -> bool:
    """Whether it was refused because there is nothing left to do, but to begin another."""
    said = done.output.partition("to run it again: ")[0]
    return any(word in said for word in COMPLETE) and not advised(said)


def _do(stage: Stage, scene: Scene, argv: list[str], case: Path, strike: Strike | None) -> Done:
    if strike and strike.kind == "time":  # a share of the time that it takes undisturbed
        _, undisturbed = stage.undisturbed(scene)
        strike = Strike("time", strike.n * undisturbed.seconds)
    return stage.do(argv, case, strike)


def _faults_of(done: Done, scene: Scene) -> Iterable[str]:
    if "Traceback (most recent call last)" in done.output:
        yield f"a traceback: {done.output.rstrip().splitlines()[-1]}"
    asked = done.struck and done.strike.signals
    if asked and done.status not in (INTERRUPTED, *scene.ends):
        yield f"status {done.status} after a signal, not {INTERRUPTED}"
    if asked and done.since > SOON:
        yield f"stopped {done.since:.0f} s after it was asked"
    if done.struck or done.status in scene.ends or _is_complete(done):
        return
    refusals = [line for line in done.output.splitlines() if line.startswith("kilotune: ")]
    if done.status != UNUSABLE or len(refusals) != 1:
        yield f"status {done.status} of `kilotune {' '.join(done.argv)}`"
    elif not advised(done.output) and "start it again" not in done.output:
        yield f"leads nowhere: {refusals[0]}"


def _begun_anew(done: Sequence[Done]) -> Iterable[str]:
    """Where a checkpoint was promised, training went on from one."""
    for before, after in pairwise(done):
        promised = "saving a checkpoint" in before.output and "epoch 1:" in before.output
        if promised and "epoch 1:" in after.output:
            yield "a checkpoint was promised, and the training begun anew"


def drawn(stage: Stage, scene: str, kind: str, count: int, seed: int) -> list[Kill]:
    """`count` kills of a kind, spread over the whole command; every third is struck once more."""
    rng = random.Random(f"{scene} {kind} {seed}")
    _, undisturbed = stage.undisturbed(SCENES[scene])
    kills = []
    for number in range(count):
        share = (number + rng.random()) / count
        strikes = [_strike(kind, share, undisturbed, rng)]
        if SCENES[scene].again and number % 3 == 2:
            others = ("audit", "torn", "time")
            more = rng.choice((1, 1, 2))
            strikes += [_strike(rng.choice(others), rng.random() * 0.7, undisturbed, rng)
                for _ in range(more)]  # fmt: skip
        kills.append(Kill(scene, tuple(strikes), resumes=rng.random() < 0.5))
    return kills


def _strike(kind: str, share: float, undisturbed: Done, rng: random.Random) -> Strike:
    if kind == "time":
        return Strike(kind, round(0.02 + 0.93 * share, 3))
    if kind == "event":
        return Strike(kind, 1 + int(share * 0.97 * undisturbed.events))
    n = 1 + int(share * len(undisturbed.operations))
    return Strike(kind, n, rng.choice(TORN) if kind == "torn" else 0)


# How many kills of which scene and kind `make test-long` does.
PLAN = {
    "run": {"audit": 40, "torn": 30, "event": 16, "time": 14, "TERM": 5, "HUP": 4, "INT": 5,
        "INT-INT": 4},
    "layers": {"audit": 8, "torn": 6, "time": 4, "TERM": 2},
    "resume": {"audit": 10, "torn": 8, "event": 4, "time": 4, "TERM": 2, "INT": 2},
    "ablate": {"audit": 5, "torn": 3, "time": 4, "TERM": 1, "INT": 1},
    "predict": {"audit": 6, "torn": 5, "event": 3, "time": 3, "TERM": 2, "INT": 2},
    "augment": {"audit": 8, "torn": 4, "TERM": 1},
    "fix": {"audit": 5, "torn": 4},
    "convert": {"audit": 2, "torn": 2},
    "export": {"audit": 5, "torn": 4, "event": 3},
    "vllm": {"audit": 3, "torn": 2},
    "report": {"audit": 2, "torn": 2, "TERM": 1},
}  # fmt: skip


def main() -> int:
    """Repeat one kill and show all that was said; or do every n-th of the plan."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scene", choices=[*SCENES, "all"])
    parser.add_argument("strikes", nargs="*", type=Strike.parse, help="such as audit:37")
    parser.add_argument("--repeat", action="store_true", help="the same command, not `resume`")
    parser.add_argument("--every", type=int, default=1, help="of `all`: so many are one")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        stage = Stage(Path(root))
        if asked.scene == "all":
            return _campaign(stage, asked.every, asked.seed)
        kill = Kill(asked.scene, tuple(asked.strikes), not asked.repeat)
        outcome = strike_all(stage, kill, "case")
    print(*outcome.done, outcome.heading, sep="\n\n")
    return bool(outcome.faults)


def _campaign(stage: Stage, every: int, seed: int) -> int:
    """Kills of every kind, each said as it ends, and a table of them."""
    table: dict[str, list[int]] = {}
    for scene, kinds in PLAN.items():
        for kind, planned in kinds.items():
            for number, kill in enumerate(drawn(stage, scene, kind, -(-planned // every), seed)):
                outcome = strike_all(stage, kill, f"{scene}-{kind}-{number}")
                counts = table.setdefault(f"{scene} {kind}", [0, 0])
                counts[0] += 1
                counts[1] += not outcome.faults
                print(outcome, flush=True)
    for name, (kills, equal) in table.items():
        print(f"{name}: {equal} of {kills} ended as undisturbed")
    return any(equal < kills for kills, equal in table.values())


if __name__ == "__main__":
    sys.exit(main())

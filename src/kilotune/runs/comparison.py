"""Two runs side by side: recipes, evidence on the examples both were asked, curves, answers."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kilotune.data.example import Task
from kilotune.errors import KilotuneError
from kilotune.evaluation.adoption import Adoption, Trials, adopt
from kilotune.evaluation.evidence import PairedTest, sign_test
from kilotune.evaluation.judgement import scores
from kilotune.recipe.difference import SettingChange, differences
from kilotune.runs import record
from kilotune.runs.cost import Cost
from kilotune.runs.documents import DataDocument, EnvironmentDocument
from kilotune.runs.record import RunFolder

Row = Mapping[str, Any]

# What an evaluation took, and not what it found.
EFFORT = ("runtime", "samples_per_second", "steps_per_second", "generated_tokens")


@dataclass(frozen=True, slots=True)
class ChangedExample:
    """An example that one of the two runs alone answered right."""

    id: str
    prompt: str
    reference: str
    before: str
    after: str
    better: bool


@dataclass(frozen=True, slots=True)
class Paired:
    """Two runs on the examples that both were asked.

    `left_out` counts those that only one was asked, or under another text or answer.
    """

    evidence: Adoption
    right: PairedTest
    left_out: int
    changed: tuple[ChangedExample, ...]


@dataclass(frozen=True, slots=True)
class Epoch:
    """The mean training loss of an epoch, and what was measured on validation at its end."""

    epoch: float
    loss: float | None
    validation: dict[str, float]


@dataclass(frozen=True, slots=True)
class RunComparison:
    """What is different between two runs, `before` and `after`.

    `validation` is what to choose by, of both runs' answers out of fold where they have them; None
    where the two have no such example in common.
    `test` is not to choose by.
    """

    before: str
    after: str
    changes: dict[str, SettingChange]
    same_data: bool
    same_code: bool
    costs: tuple[Cost | None, Cost | None]
    curves: tuple[tuple[Epoch, ...], tuple[Epoch, ...]]
    validation: Paired | None
    test: Paired | None


def compare(before: str | Path, after: str | Path) -> RunComparison:
    """Two finished runs' folders. Raises KilotuneError where one is not, or their tasks differ."""
    both = first, second = RunFolder(Path(before)), RunFolder(Path(after))
    for folder in both:
        folder.read_recipe(runs=())
        folder.check_finished()
    data = [folder.read(DataDocument) for folder in both]
    if data[0].task != data[1].task:
        raise KilotuneError(
            f"one is of the task '{data[0].task}', the other of '{data[1].task}'",
            where=str(after),
            fix="Compare runs of one task",
        )
    environments = [folder.read(EnvironmentDocument) for folder in both]
    costs = _cost(environments[0]), _cost(environments[1])
    cheaper = bool(costs[0] and costs[1] and costs[1].cheaper_than(costs[0]))
    task = data[0].task

    def paired(name: str) -> Paired | None:
        before, after = (
            {row["id"]: row for row in folder.read_predictions(name)} for folder in both
        )
        return _paired(before, after, task, cheaper=cheaper)

    return RunComparison(
        before=str(before),
        after=str(after),
        changes=differences(first.read_recipe(runs=()), second.read_recipe(runs=())),
        same_data=data[0].fingerprint == data[1].fingerprint,
        same_code=environments[0].code == environments[1].code is not None,
        costs=costs,
        curves=(curve(first.read_metrics()), curve(second.read_metrics())),
        validation=paired(held) if (held := _chosen_by(both, data)) else None,
        test=paired(record.PREDICTIONS),
    )


def _chosen_by(both: Sequence[RunFolder], data: Sequence[DataDocument]) -> str | None:
    """Which answers both have to choose by: out of fold, else to validation."""
    if all((folder / record.HELD_OUT).exists() for folder in both):
        return record.HELD_OUT
    return record.VALIDATION if all(one.split.validation for one in data) else None


def curve(log: Iterable[Mapping[str, float]]) -> tuple[Epoch, ...]:
    """A training log by epochs."""
    losses: dict[int, list[float]] = defaultdict(list)
    validation: dict[int, dict[str, float]] = {}
    for line in log:
        # A step belongs to the epoch that it completes.
        number = -int(-line.get("epoch", 0) // 1)
        if "loss" in line:
            losses[number].append(line["loss"])
        if "eval_loss" in line:
            named = {k.removeprefix("eval_"): v for k, v in line.items() if k.startswith("eval_")}
            validation[number] = {k: v for k, v in named.items() if k not in EFFORT}
    return tuple(
        Epoch(number, _mean(losses.get(number)), validation.get(number, {}))
        for number in sorted({*losses, *validation} - {0})
    )


def _paired(
    before: Mapping[str, Row], after: Mapping[str, Row], task: Task, *, cheaper: bool
) -> Paired | None:
    asked = {id: (row["prompt"], row["reference"]) for id, row in before.items()}
    # An id is a row's number: of another file it may be another example.
    ids = [id for id, row in after.items() if asked.get(id) == (row["prompt"], row["reference"])]
    if not ids:
        return None
    first, second = ([rows[id] for id in ids] for rows in (before, after))
    evidence = adopt(
        Trials((_scores(first, task),)), Trials((_scores(second, task),)), cheaper=cheaper
    )
    return Paired(
        evidence=evidence,
        right=sign_test([r["tuned_right"] for r in first], [r["tuned_right"] for r in second]),
        left_out=len({*before, *after}) - len(ids),
        changed=tuple(
            ChangedExample(
                b["id"], b["prompt"], b["reference"], b["tuned_output"], a["tuned_output"],
                better=a["tuned_right"],
            )
            for b, a in zip(first, second, strict=True)
            if b["tuned_right"] != a["tuned_right"]
        ),
    )  # fmt: skip


def _scores(rows: list[Row], task: Task) -> dict[str, float]:
    references = [row["reference"] for row in rows]
    values = scores(task, references, [row["tuned_prediction"] for row in rows])
    return {row["id"]: value for row, value in zip(rows, values, strict=True)}


def _cost(environment: EnvironmentDocument) -> Cost | None:
    tokens = environment.tokens
    seconds = round(sum(environment.seconds.values()), 1)
    return Cost(seconds, tokens["trained"], tokens["generated"]) if tokens else None


def _mean(values: list[float] | None) -> float | None:
    return sum(values) / len(values) if values else None

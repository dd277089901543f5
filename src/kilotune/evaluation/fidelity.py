"""How an exported model answers in another program, beside what was judged of the run."""

from collections.abc import Mapping
from dataclasses import dataclass

from kilotune.evaluation.evidence import Estimate
from kilotune.evaluation.task_metrics import TITLES
from kilotune.messages.sentences import Phrase, phrase, say

# Two tokens so near each other, in nats, may change places by rounding alone.
NEAR = {"float32": 0.01}
NEAR_OTHERWISE = 0.5
# The share of answers that may differ so, and the fewest that a share can be taken of.
MAY_DIFFER, OF = 0.01, 100


@dataclass(frozen=True, slots=True)
class Parting:
    """An answer that is another than the judged one.

    They part at the token `token`, from 0, where the program's was likelier than the judged one by
    `gap` nats; None where that is not known.
    """

    id: str
    judged: str
    said: str
    token: int | None = None
    gap: float | None = None


@dataclass(frozen=True, slots=True)
class Fidelity:
    """What came of putting a run's test prompts to `export`, in `form`, by `program`.

    `prompts` were put, `apart` are the ids of those that became other token ids there than judged.
    `judged` and `figures` are the task's two figures for the same prompts, before and now.
    `tokens` were generated in `seconds`; `size` and `memory` are bytes, of the weights on disk and
    of what the process grew by. `near` is the gap that rounding explains. `samples` says that the
    artefact by itself does not decode greedily, though the run did.
    """

    program: str
    export: str
    form: str
    prompts: int
    apart: tuple[str, ...]
    differences: tuple[Parting, ...]
    judged: Mapping[str, Estimate]
    figures: Mapping[str, Estimate]
    tokens: int
    seconds: float
    size: int
    memory: int
    near: float
    quantised: bool = False
    sampled: bool = False
    samples: bool = False

    @property
    def equal(self) -> int:
        """How many answers are the judged ones, to the letter."""
        return self.prompts - len(self.differences)

    @property
    def unexplained(self) -> tuple[Parting, ...]:
        """The answers that differ by more than rounding; none of a quantised model's count."""
        if self.quantised or self.sampled:
            return ()
        return tuple(d for d in self.differences if d.gap is None or d.gap > self.near)

    @property
    def faults(self) -> tuple[Phrase, ...]:
        """What is wrong, most harmful first: nothing where the artefact answers as judged."""
        found = []
        if self.apart:
            found.append(
                phrase("verify-prompts", apart=len(self.apart), of=self.prompts,
                       ids=list(self.apart))
            )  # fmt: skip
        if self.samples:
            found.append(phrase("verify-samples"))
        if self.unexplained:
            ids = [difference.id for difference in self.unexplained]
            found.append(
                phrase("verify-answers", count=len(ids), of=self.prompts, near=self.near, ids=ids)
            )
        elif not (self.quantised or self.sampled) and self._too_many:
            found.append(
                phrase("verify-many", count=len(self.differences), of=self.prompts,
                       near=self.near)
            )  # fmt: skip
        return tuple(found)

    @property
    def _too_many(self) -> bool:
        return len(self.differences) > MAY_DIFFER * max(self.prompts, OF)

    @property
    def said(self) -> Phrase:
        """The outcome in one line."""
        figures = [
            phrase("verify-figure", name=TITLES.get(name, name), now=_number(figure),
                   before=_number(self.judged[name]))
            for name, figure in self.figures.items()
        ]  # fmt: skip
        return phrase(
            "verify-line",
            program=self.program,
            form=self.form,
            equal=self.equal,
            of=self.prompts,
            figures=figures,
            size=self.size / 1e6,
            speed=self.tokens / self.seconds if self.seconds else 0.0,
        )

    def __str__(self) -> str:
        return say(self.said)


def _number(figure: Estimate) -> str:
    return "unavailable" if figure.value is None else f"{figure.value:.3f}"


def near(dtype: str) -> float:
    """The gap in nats that rounding explains in a model of that type."""
    return NEAR.get(dtype, NEAR_OTHERWISE)

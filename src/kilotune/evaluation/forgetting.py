"""What a tuned model has lost of what its base model could do: figures on general prompts."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Protocol

from kilotune.data.files.writers import Number
from kilotune.evaluation.evidence import Estimate, Figure, mean_figure
from kilotune.evaluation.health import Health

# Tokens of an answer that are looked at: how it begins shows as well as the whole whether it is
# still the same model that speaks, and bounds the time.
ANSWER_TOKENS = 32
# Less than this is worth a warning. SmolLM2 tuned well on film reviews kept 0.87; with its adapter
# at twice the strength 0.53, at three times 0.24, where most general answers are empty or a label;
# at a rate of 2e-2, which destroys it, 0.00 (docs/health.md).
WARN_BELOW = 0.5


@dataclass(frozen=True, slots=True)
class GeneralPrompt:
    """A question that has nothing to do with anyone's data."""

    kind: str
    language: str
    prompt: str


class Drift(Protocol):
    """One answer of the base model, and what both models make of it: means over its tokens.

    `divergence` is the Kullback-Leibler divergence of the tuned from the base model's distribution,
    in nats; the losses are negative log-likelihoods.
    """

    @property
    def tokens(self) -> int:
        """How many there are."""

    @property
    def divergence(self) -> float:
        """In nats."""

    @property
    def base_loss(self) -> float:
        """The base model's."""

    @property
    def tuned_loss(self) -> float:
        """The tuned model's."""


@dataclass(frozen=True, slots=True)
class Forgetting:
    """How far the tuned model has moved on general prompts.

    `kept` is the score, 1 for a model that did not move: the mean over prompts of exp(-divergence),
    with its interval. `divergence` is the mean in nats a token. The perplexities are of the base
    model's own answers. `by_kind` is `kept` by kind of prompt. Of a model whose probabilities are
    not finite, these are not either.
    """

    prompts: int
    tokens: int
    kept: Estimate
    divergence: Number
    base_perplexity: Number
    perplexity: Number
    by_kind: dict[str, Number]
    base_health: Health
    health: Health

    @property
    def much(self) -> bool:
        """Whether so much was lost that a user should know before using the model for more."""
        return isinstance(self.kept, Figure) and self.kept.high < WARN_BELOW


def general_prompts() -> tuple[GeneralPrompt, ...]:
    """The 100 prompts that come with kilotune, English and Chinese, of five kinds."""
    source = files("kilotune.evaluation") / "prompts" / "general.jsonl"
    lines = source.read_text(encoding="utf-8").splitlines()
    return tuple(GeneralPrompt(**json.loads(line)) for line in lines)


def forgetting(
    kinds: Sequence[str],
    drifts: Sequence[Drift],
    *,
    base_health: Health,
    health: Health,
    samples: int,
    seed: int,
) -> Forgetting:
    """The figures of `drifts`, one a prompt of the kind at its place."""
    kept = [math.exp(-drift.divergence) for drift in drifts]
    tokens = sum(drift.tokens for drift in drifts)
    by_kind = {}
    for kind in dict.fromkeys(kinds):
        of = [value for value, its in zip(kept, kinds, strict=True) if its == kind]
        by_kind[kind] = sum(of) / len(of)
    return Forgetting(
        prompts=len(drifts),
        tokens=tokens,
        kept=mean_figure(kept, samples=samples, seed=seed),
        divergence=sum(drift.divergence for drift in drifts) / len(drifts),
        base_perplexity=_perplexity(sum(d.base_loss * d.tokens for d in drifts) / tokens),
        perplexity=_perplexity(sum(d.tuned_loss * d.tokens for d in drifts) / tokens),
        by_kind=by_kind,
        base_health=base_health,
        health=health,
    )


def _perplexity(loss: float) -> float:
    try:
        return math.exp(loss)
    except OverflowError:  # a model that was tuned to pieces is surprised without bounds
        return math.inf


def in_words(found: Forgetting) -> str:
    """The score on one line, and what it means where it is low."""
    if not isinstance(found.kept, Figure):
        return f"no figure: {found.kept.reason}"
    said = (
        f"{found.kept} kept of what the base model would say (divergence {found.divergence:.2f} "
        f"nats a token, perplexity of its answers {found.base_perplexity:.1f} → "
        f"{found.perplexity:.1f})"
    )
    return f"{said}; for other tasks than this use the base model" if found.much else said

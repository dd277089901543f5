"""What a session's tuned model keeps of its base model, asked about on general prompts."""

from collections.abc import Sequence

from kilotune.data.example import Example, Message, Origin
from kilotune.evaluation.forgetting import (
    ANSWER_TOKENS,
    Forgetting,
    GeneralPrompt,
    forgetting,
    general_prompts,
)
from kilotune.evaluation.health import Health, health
from kilotune.generation.answer import Prompting
from kilotune.generation.decoding import Generation
from kilotune.generation.divergence import apart
from kilotune.models.streaming import streamed_layers
from kilotune.session.model_session import Session


def measure_forgetting(session: Session) -> Forgetting | None:
    """How far the tuned model has moved on general prompts; None where that is not measured."""
    progress, tunable = session.progress, session.tunable
    if session.prepared.recipe.judge.forgetting == "never":
        return None
    if streamed_layers(tunable.model):
        progress.say("forgetting: not measured, each token would read layers from disk")
        return None
    prompting = session.prompting.plain(ANSWER_TOKENS)
    asked, examples = _prompts(prompting)
    if not examples:
        progress.say("forgetting: not measured, no general prompt is short enough")
        return None
    with tunable.as_base() as base:
        before = prompting.answers(base, examples, progress, "general prompts, base")
    after = prompting.answers(tunable.model, examples, progress, "general prompts, tuned")
    session.spent.generated += sum(answer.tokens for answer in (*before, *after))
    said = [i for i, answer in enumerate(before) if answer.text or answer.stopped]
    if not said:
        progress.say("forgetting: not measured, the base model says nothing")
        return None
    drifts = apart(
        tunable.model,
        tunable.as_base,
        prompting.token_ids([examples[i] for i in said]),
        [before[i].token_ids for i in said],
        pad_id=prompting.generation.pad_token_id,
        progress=progress,
    )
    return forgetting(
        [asked[i].kind for i in said],
        drifts,
        base_health=_health(asked, before),
        health=_health(asked, after, before),
        **session.resampling,
    )


def _prompts(prompting: Prompting) -> tuple[Sequence[GeneralPrompt], list[Example]]:
    """The general prompts that the model has room for, and as examples."""
    asked = general_prompts()
    examples = [
        Example(f"general:{number}", (Message("user", one.prompt),), Origin("general", number))
        for number, one in enumerate(asked, 1)
    ]
    if not prompting.limits.positions:
        return asked, examples
    refused = {row for finding in prompting.refusals(examples) for row in finding.rows}
    kept = [number for number, e in enumerate(examples) if e.id not in refused]
    return [asked[n] for n in kept], [examples[n] for n in kept]


def _health(
    asked: Sequence[GeneralPrompt],
    said: Sequence[Generation],
    before: Sequence[Generation] | None = None,
) -> Health:
    """How answers to general prompts came out; `before` are those of the base model."""
    return health(
        [answer.text for answer in said],
        stopped=[answer.stopped for answer in said],
        unread=[False] * len(said),
        prompts=[one.prompt for one in asked],
        references=[answer.text for answer in before] if before else [None] * len(said),
    )

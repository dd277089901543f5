"""Whether each example is a conversation that can be learnt from."""

from collections.abc import Sequence
from itertools import pairwise

from kilotune.data.checks.duplicates import asked
from kilotune.data.example import ROLES, Example, comparable
from kilotune.data.finding import Finding, about_rows, finding
from kilotune.messages.sentences import phrase

# Fewer cannot be split into three parts that each say anything.
MINIMUM_EXAMPLES = 10


def empty_text(examples: Sequence[Example]) -> list[Finding]:
    """User turns with nothing in them, neither text nor image."""
    rows = [
        example.id
        for example in examples
        if any(m.role == "user" and not m.text.strip() and not m.images for m in example.messages)
    ]
    return about_rows("empty-text", rows)


def missing_answer(examples: Sequence[Example]) -> list[Finding]:
    """Conversations that do not end with an answer."""
    rows = [example.id for example in examples if example.answer is None]
    return about_rows("missing-answer", rows)


def empty_answer(examples: Sequence[Example]) -> list[Finding]:
    """Answers with nothing in them."""
    rows = [
        example.id
        for example in examples
        if any(m.role == "assistant" and not m.text.strip() for m in example.messages)
    ]
    return about_rows("empty-answer", rows)


def repeated_question(examples: Sequence[Example]) -> list[Finding]:
    """Answers that say again what was asked: as a rule one column copied twice."""
    rows = [
        example.id
        for example in examples
        if any(
            (one.role, other.role) == ("user", "assistant")
            and one.text.strip()
            and comparable(one.text) == comparable(other.text)
            for one, other in pairwise(example.messages)
        )
    ]
    return about_rows("answer-repeats", rows)


def unknown_role(examples: Sequence[Example]) -> list[Finding]:
    """Roles that no chat template knows."""
    strange = {
        example.id: roles
        for example in examples
        if (roles := {message.role for message in example.messages}.difference(ROLES))
    }
    named = sorted({f"'{role}'" for roles in strange.values() for role in roles})
    return about_rows("unknown-role", list(strange), detail=named)


def turn_order(examples: Sequence[Example]) -> list[Finding]:
    """Conversations that do not go from user to assistant and back."""
    rows = [example.id for example in examples if not _in_turns(example)]
    return about_rows("turn-order", rows)


def _in_turns(example: Example) -> bool:
    turns = [m.role for m in example.messages if m.role in {"user", "assistant"}]
    return turns[:1] == ["user"] and all(one != other for one, other in pairwise(turns))


def system_not_first(examples: Sequence[Example]) -> list[Finding]:
    """System messages anywhere but at the beginning."""
    rows = [
        example.id
        for example in examples
        if any(message.role == "system" for message in example.messages[1:])
    ]
    return about_rows("system-not-first", rows)


def too_few(examples: Sequence[Example]) -> list[Finding]:
    """Fewer examples than anything can be said about."""
    different: set[object] = set()
    for example in examples:
        different.add(asked(example))
        if len(different) == MINIMUM_EXAMPLES:
            return []
    texts = phrase("one-text" if len(different) == 1 else "texts", different=len(different))
    return [finding("too-few-examples", texts=texts, least=MINIMUM_EXAMPLES)]

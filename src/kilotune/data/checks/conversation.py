"""Whether each example is a conversation that can be learnt from."""

from collections.abc import Sequence
from itertools import pairwise

from kilotune.data.checks.duplicates import asked
from kilotune.data.example import ROLES, Example, comparable
from kilotune.data.finding import Finding, about_rows
from kilotune.errors import some

# Fewer cannot be split into three parts that each say anything.
MINIMUM_EXAMPLES = 10


def empty_text(examples: Sequence[Example]) -> list[Finding]:
    """User turns with nothing in them, neither text nor image."""
    rows = [
        example.id
        for example in examples
        if any(m.role == "user" and not m.text.strip() and not m.images for m in example.messages)
    ]
    fix = "Fill in the text or remove the rows"
    return about_rows("empty-text", "error", rows, "rows without text", fix)


def missing_answer(examples: Sequence[Example]) -> list[Finding]:
    """Conversations that do not end with an answer."""
    rows = [example.id for example in examples if example.answer is None]
    fix = "Add the answer to learn, or remove what follows the last one"
    return about_rows("missing-answer", "error", rows, "rows without an answer at the end", fix)


def empty_answer(examples: Sequence[Example]) -> list[Finding]:
    """Answers with nothing in them."""
    rows = [
        example.id
        for example in examples
        if any(m.role == "assistant" and not m.text.strip() for m in example.messages)
    ]
    fix = "Fill in the answer or remove the rows; the model would learn to say nothing"
    return about_rows("empty-answer", "error", rows, "rows with an empty answer", fix)


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
    what = "rows whose answer repeats the question"
    fix = "See that the answer stands in its own column; else the model learns to say things again"
    return about_rows("answer-repeats", "warning", rows, what, fix)


def unknown_role(examples: Sequence[Example]) -> list[Finding]:
    """Roles that no chat template knows."""
    strange = {
        example.id: roles
        for example in examples
        if (roles := {message.role for message in example.messages}.difference(ROLES))
    }
    named = some(sorted({f"'{role}'" for roles in strange.values() for role in roles}))
    fix = f"Use {', '.join(ROLES)}"
    return about_rows("unknown-role", "error", list(strange), f"rows with the roles {named}", fix)


def turn_order(examples: Sequence[Example]) -> list[Finding]:
    """Conversations that do not go from user to assistant and back."""
    rows = [example.id for example in examples if not _in_turns(example)]
    what = "rows in which user and assistant do not take turns, the user first"
    fix = "Join turns that belong together, and begin with what the user says"
    return about_rows("turn-order", "error", rows, what, fix)


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
    what = "rows with a system message that is not the first message"
    fix = "Put it first, once; most chat templates refuse or drop it elsewhere"
    return about_rows("system-not-first", "error", rows, what, fix)


def too_few(examples: Sequence[Example]) -> list[Finding]:
    """Fewer examples than anything can be said about."""
    different: set[object] = set()
    for example in examples:
        different.add(asked(example))
        if len(different) == MINIMUM_EXAMPLES:
            return []
    message = f"only {len(different)} different text{'s' * (len(different) != 1)}"
    fix = f"Label at least {MINIMUM_EXAMPLES}; 50 or more give a result worth trusting"
    return [Finding("too-few-examples", "error", (), message, fix)]

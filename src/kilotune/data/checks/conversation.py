"""Whether each example is a conversation that can be learnt from."""

from collections.abc import Sequence

from kilotune.data.example import Example, comparable
from kilotune.data.finding import Finding, about_rows

# Fewer cannot be split into three parts that each say anything.
MINIMUM_EXAMPLES = 10


def empty_text(examples: Sequence[Example]) -> list[Finding]:
    """Prompts with nothing in them."""
    rows = [example.id for example in examples if not example.text]
    fix = "Fill in the text or remove the rows"
    return about_rows("empty-text", "error", rows, "rows without text", fix)


def too_few(examples: Sequence[Example]) -> list[Finding]:
    """Fewer examples than anything can be said about."""
    different = len({comparable(example.text) for example in examples})
    if different >= MINIMUM_EXAMPLES:
        return []
    message = f"only {different} different texts"
    fix = f"Label at least {MINIMUM_EXAMPLES}; 50 or more give a result worth trusting"
    return [Finding("too-few-examples", "error", (), message, fix)]

"""What is wrong with labelled data, found before anything is trained."""

from collections.abc import Callable, Iterable, Sequence

from kilotune.data.checks import (
    answers,
    characters,
    conversation,
    duplicates,
    image_quality,
    labels,
)
from kilotune.data.checks.duplicates import check_leakage
from kilotune.data.checks.labels import check_split, check_unseen_labels
from kilotune.data.checks.language import answer_language
from kilotune.data.checks.lengths import CountTokens, outliers
from kilotune.data.checks.markup import html_remains, template_markers
from kilotune.data.checks.personal import personal_data
from kilotune.data.example import Example, Task
from kilotune.data.finding import Finding, errors_first

__all__ = ["check_examples", "check_leakage", "check_part", "check_rows", "check_split"]

Check = Callable[[Sequence[Example]], Iterable[Finding]]

# Of each row by itself, so they hold for a validation or test file of any size too.
ROW_CHECKS: tuple[Check, ...] = (
    conversation.empty_text,
    conversation.unknown_role,
    conversation.turn_order,
    conversation.system_not_first,
    image_quality.image_faults,
    characters.mojibake,
    characters.control_characters,
    html_remains,
    template_markers,
    personal_data,
)
ANSWERED = (conversation.missing_answer, conversation.empty_answer)
ROW_CHECKS_OF_TASK: dict[Task, tuple[Check, ...]] = {
    "classify": (labels.missing_label, labels.missing_value),
    "generate": (*ANSWERED, conversation.repeated_question),
    "extract": (*ANSWERED, answers.invalid_json),
    "chat": (*ANSWERED, conversation.repeated_question),
}

# Of the rows against each other.
FREE = (conversation.too_few, duplicates.free_repeats, answers.answer_script, answer_language)
SET_CHECKS_OF_TASK: dict[Task, tuple[Check, ...]] = {
    "classify": (
        conversation.too_few,
        labels.classes,
        labels.label_variants,
        labels.misspelt_labels,
        duplicates.repeats,
    ),
    "generate": FREE,
    "extract": (conversation.too_few, answers.json_schema, duplicates.repeats),
    "chat": FREE,
}


def check_examples(
    examples: Sequence[Example],
    task: Task = "classify",
    *,
    count_tokens: CountTokens | None = None,
) -> list[Finding]:
    """Every check that needs the examples alone, errors first.

    `count_tokens` gives the length of a text; without it lengths are estimated from characters.
    """
    found = [finding for check in SET_CHECKS_OF_TASK[task] for finding in check(examples)]
    found += outliers(examples, task, count_tokens)
    return errors_first([*check_rows(examples, task), *found])


def check_rows(examples: Sequence[Example], task: Task = "classify") -> list[Finding]:
    """The checks of each row by itself, errors first."""
    checks = (*ROW_CHECKS, *ROW_CHECKS_OF_TASK[task])
    return errors_first(finding for check in checks for finding in check(examples))


def check_part(
    train: Sequence[Example], part: Sequence[Example], name: str, task: Task
) -> list[Finding]:
    """The checks of a file given as `name` (validation or test) beside the training file."""
    found = [*check_rows(part, task), *check_leakage(train, part, name)]
    if task == "classify":
        found += check_unseen_labels(train, part, name)
    return errors_first(found)

"""What a file asks of a model: closed labels, free text, JSON, or a whole conversation."""

import json
from collections import Counter
from collections.abc import Sequence
from statistics import median

from kilotune.data.example import Example, Task, comparable
from kilotune.data.finding import Finding, about_rows

# Tasks in which what was said before belongs to the question.
CONVERSING: tuple[Task, ...] = ("generate", "chat")
# `chat`: this share of the examples has several answers; fewer are named by a finding.
SEVERAL_SHARE = 0.1
# `extract`: this share of the answers is a JSON object or list; the checks name the others.
JSON_SHARE = 0.8
# `classify`: no answer is longer than a label, there are few different ones, and nearly every
# example's answer is that of another example too.
LABEL_LENGTH = 60
CLASS_SHARE = 0.2
REPEATED_SHARE = 0.9
# A text/label file is `classify` unless its labels are this long in the middle, and more of them
# differ than closed labels can.
FREE_TEXT_LENGTH = 40
DIFFERENT_SHARE = 0.5


def detect_task(examples: Sequence[Example], labelled: bool) -> tuple[Task, str]:
    """The task of the examples, and why. `labelled` means that they come from a label column."""
    several = len(with_several_answers(examples))
    if several and several >= SEVERAL_SHARE * len(examples):
        return "chat", f"{several} of {len(examples)} examples have several answers"
    answers = [answer for example in examples if (answer := example.answer)]
    if not answers:
        return ("classify" if labelled else "generate"), "there are no answers"
    structured = sum(map(is_json, answers))
    if structured >= JSON_SHARE * len(answers):
        return "extract", f"{structured} of {len(answers)} answers are JSON"
    counts = Counter(map(comparable, answers))
    counted = f"{len(counts)} different answers in {len(answers)} examples"
    closed = not _free_text(answers, counts) if labelled else _closed(answers, counts)
    return ("classify" if closed else "generate"), counted


def with_several_answers(examples: Sequence[Example]) -> list[str]:
    """The ids of the examples in which the assistant speaks more than once."""
    return [e.id for e in examples if sum(m.role == "assistant" for m in e.messages) > 1]


def several_answers(examples: Sequence[Example], task: Task) -> list[Finding]:
    """The few conversations of several answers in a file whose task is of single ones."""
    rows = with_several_answers(examples)
    if task == "chat" or len(rows) >= SEVERAL_SHARE * len(examples):
        return []
    return about_rows("several-answers", rows, task=task)


def is_json(text: str) -> bool:
    """Whether a text is a JSON object or list."""
    if not text.lstrip().startswith(("{", "[")):
        return False
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _closed(answers: Sequence[str], counts: Counter[str]) -> bool:
    repeated = sum(count for count in counts.values() if count > 1)
    return (
        max(map(len, counts)) <= LABEL_LENGTH
        and len(counts) <= max(2, CLASS_SHARE * len(answers))
        and repeated >= REPEATED_SHARE * len(answers)
    )


def _free_text(answers: Sequence[str], counts: Counter[str]) -> bool:
    long = median(map(len, answers)) >= FREE_TEXT_LENGTH
    return long and len(counts) > DIFFERENT_SHARE * len(answers)

"""How each task's answers are read, which of them are right, and what figures say so."""

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from kilotune.data.example import Task, comparable
from kilotune.evaluate.metrics import NO_LABEL, parse_label

UNREADABLE = NO_LABEL  # the prediction of an answer that could not be read

TITLES = {
    "accuracy": "accuracy",
    "macro_f1": "macro-F1",
    "exact_match": "exact match",
    "token_f1": "token F1",
    "field_f1": "field F1",
    "loss": "loss",
}


@dataclass(frozen=True, slots=True)
class TaskMetrics:
    """What is measured of a task.

    `exact` names the share of answers that are right. `graded` names the finer figure: the mean
    of `score` over the examples or, where there is no `score`, macro-F1 over the labels.
    `read` makes a prediction of an answer, UNREADABLE where it cannot; `unreadable` says how
    such answers are called.
    """

    exact: str
    graded: str
    unreadable: str
    read: Callable[[str, Sequence[str]], str]
    right: Callable[[str, str], bool]
    score: Callable[[str, str], float] | None = None


def token_f1(prediction: str, reference: str) -> float:
    """F1 of the bags of words of two texts (Rajpurkar et al. 2016, section 6.1).

    Case, width and punctuation do not count; every ideograph, kana or Thai letter is a word.
    Two texts without words are alike.
    """
    return _bag_f1(_words(prediction), _words(reference))


def field_f1(prediction: str, reference: str) -> float:
    """F1 of the (path, value) pairs of two JSON texts; 0 where one cannot be read."""
    values = (_json(prediction), _json(reference))
    if values[0] is None or values[1] is None:
        return 0.0
    return _bag_f1(*(list(_fields(value)) for value in values))


def same_text(prediction: str, reference: str) -> bool:
    """Whether two texts are alike but for case, width and spaces."""
    return comparable(prediction) == comparable(reference)


def same_json(prediction: str, reference: str) -> bool:
    """Whether two JSON texts have the same value, whatever their spaces and order of keys."""
    value = _json(prediction)
    return value is not None and value == _json(reference)


def read_json(answer: str, _: Sequence[str]) -> str:
    """The JSON object or list in `answer`, keys sorted; UNREADABLE when there is none.

    A fence of three backticks around it, as chat models like to put, is taken off.
    """
    value = _json(answer)
    return UNREADABLE if value is None else json.dumps(value, ensure_ascii=False, sort_keys=True)


def _read_text(answer: str, _: Sequence[str]) -> str:
    return answer.strip()


def _json(text: str) -> Any:
    fenced = re.fullmatch(r"\s*```(?:json)?\s*(.*?)\s*```\s*", text, re.DOTALL | re.IGNORECASE)
    try:
        value = json.loads(fenced[1] if fenced else text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict | list) else None


def _fields(value: Any, path: str = "") -> list[str]:
    if isinstance(value, dict):
        return [field for key, item in value.items() for field in _fields(item, f"{path}.{key}")]
    if isinstance(value, list):  # the order of a list does not count
        return [field for item in value for field in _fields(item, f"{path}[]")]
    return [f"{path}={json.dumps(value)}"]


def _words(text: str) -> list[str]:
    spaceless = "\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff"
    return re.findall(rf"[{spaceless}]|(?:(?![{spaceless}])\w)+", comparable(text))


def _bag_f1(found: Sequence[str], wanted: Sequence[str]) -> float:
    if not found or not wanted:
        return float(not found and not wanted)
    common = (Counter(found) & Counter(wanted)).total()
    return 2 * common / (len(found) + len(wanted))


_TEXT = TaskMetrics("exact_match", "token_f1", "empty", _read_text, same_text, token_f1)
TASKS: dict[Task, TaskMetrics] = {
    "classify": TaskMetrics("accuracy", "macro_f1", "no label", parse_label, str.__eq__),
    "generate": _TEXT,
    "chat": _TEXT,
    "extract": TaskMetrics("exact_match", "field_f1", "no JSON", read_json, same_json, field_f1),
}

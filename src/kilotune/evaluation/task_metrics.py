"""How each task's answers are read, which of them are right, and what figures say so."""

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from kilotune.data.example import Task, comparable
from kilotune.errors import KilotuneError
from kilotune.evaluation.metrics import NO_LABEL, parse_label
from kilotune.evaluation.overlap import chrf, rouge_l, words
from kilotune.recipe.functions import own_function
from kilotune.rendering.wording import Wording

UNREADABLE = NO_LABEL  # the prediction of an answer that could not be read
UNREAD = object()  # the value of a text that is no JSON; None is that of null
FENCE = "```"

TITLES = {
    "accuracy": "accuracy",
    "macro_f1": "macro-F1",
    "exact_match": "exact match",
    "token_f1": "token F1",
    "field_f1": "field F1",
    "loss": "loss",
    "weighted_f1": "weighted F1",
    "rouge_l": "ROUGE-L",
    "chrf": "chrF",
    "bleu": "BLEU",
    "json_validity": "valid JSON",
    "field_precision": "field precision",
    "field_recall": "field recall",
}


Score = Callable[[str, str], float]


@dataclass(frozen=True, slots=True)
class TaskMetrics:
    """What is measured of a task.

    `exact` names the share of answers that are right. `graded` names the finer figure: the mean
    of `score` over the examples or, where there is no `score`, macro-F1 over the labels.
    `read` makes a prediction of an answer, UNREADABLE where it cannot; `unreadable` says how
    such answers are called. `also` are further scores of (prediction, reference), by name, whose
    means are shown apart from those two.
    """

    exact: str
    graded: str
    unreadable: str
    read: Callable[[str, Sequence[str]], str]
    right: Callable[[str, str], bool]
    score: Score | None = None
    also: Mapping[str, Score] = field(default_factory=lambda: MappingProxyType({}))


def reader(task: Task, labels: Sequence[str], wording: Wording) -> Callable[[str], str]:
    """What a generated answer is read as: of closed labels the label as the data have it."""
    read, called = TASKS[task].read, wording.told(labels)
    return lambda answer: wording.meant(read(answer, called))


def token_f1(prediction: str, reference: str) -> float:
    """F1 of the bags of words of two texts (Rajpurkar et al. 2016, section 6.1).

    Case, width and punctuation do not count; every ideograph, kana or Thai letter is a word.
    Two texts without words are alike.
    """
    return _bag_f1(words(prediction), words(reference))


def field_f1(prediction: str, reference: str) -> float:
    """F1 of the (path, value) pairs of two JSON texts; 0 where one cannot be read.

    Values are compared as by `same_json`. An empty list or object is a value at its path, and so
    is null, which is not the same as no such key. The order of a list does not count.
    """
    pairs = _pairs(prediction, reference)
    return 0.0 if pairs is None else _bag_f1(*pairs)


def field_precision(prediction: str, reference: str) -> float:
    """The share of the predicted (path, value) pairs that the reference has, as in `field_f1`."""
    pairs = _pairs(prediction, reference)
    return 0.0 if pairs is None else _common(*pairs) / len(pairs[0])


def field_recall(prediction: str, reference: str) -> float:
    """The share of the reference's (path, value) pairs that were predicted, as in `field_f1`."""
    pairs = _pairs(prediction, reference)
    return 0.0 if pairs is None else _common(*pairs) / len(pairs[1])


def json_validity(prediction: str, _: str) -> float:
    """1 for what could be read as JSON."""
    return float(prediction != UNREADABLE)


def own_scores(path: str, references: Sequence[str], predictions: Sequence[str]) -> list[float]:
    """The score of each prediction by the user's own metric, of (prediction, reference).

    Raises KilotuneError where there is none, where it fails, or gives anything but a finite number.
    """
    score = own_function(path, f"judge.metric={path}")
    scores = []
    for prediction, reference in zip(predictions, references, strict=True):
        try:
            value = float(score(prediction, reference))
        except Exception as error:
            raise _bad_metric(path, prediction, reference, f"fails: {error!r}") from error
        if not math.isfinite(value):
            raise _bad_metric(path, prediction, reference, f"gives {value}")
        scores.append(value)
    return scores


def _bad_metric(path: str, prediction: str, reference: str, what: str) -> KilotuneError:
    return KilotuneError(
        f"the metric {what}, of the prediction {prediction[:60]!r} and the reference "
        f"{reference[:60]!r}",
        where=f"judge.metric={path}",
        fix="Return a finite number for any two texts; a prediction may be empty",
    )


def same_text(prediction: str, reference: str) -> bool:
    """Whether two texts are alike but for case, width and spaces."""
    return comparable(prediction) == comparable(reference)


def same_json(prediction: str, reference: str) -> bool:
    """Whether two JSON texts have the same value, whatever their spaces and order of keys.

    1 and 1.0 are one number; true and 1, or 1 and "1", are not the same.
    """
    values = (_json(prediction), _json(reference))
    return UNREAD not in values and _canonical(values[0]) == _canonical(values[1])


def read_json(answer: str, _: Sequence[str]) -> str:
    """The JSON object, list or null in `answer`, keys sorted; UNREADABLE when there is none.

    A fence of three backticks around it, as chat models like to put, is taken off. NaN and
    numbers past what a float holds are no JSON.
    """
    value = _json(answer)
    return UNREADABLE if value is UNREAD else _written(value)


def _read_text(answer: str, _: Sequence[str]) -> str:
    return answer.strip()


def _json(text: str) -> Any:
    """The object, list or null in a text; UNREAD for anything else."""
    try:
        value = json.loads(_unfenced(text), parse_constant=_refuse, parse_float=_finite)
        _written(value).encode()  # half a surrogate pair could not be written down
    except (ValueError, RecursionError):
        return UNREAD
    return value if value is None or isinstance(value, dict | list) else UNREAD


def _unfenced(text: str) -> str:
    body = text.strip()
    if len(body) < 2 * len(FENCE) or not (body.startswith(FENCE) and body.endswith(FENCE)):
        return body
    body = body[len(FENCE) : -len(FENCE)]
    return body[4:] if body[:4].lower() == "json" else body


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError("a number that is too large")
    return number


def _written(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def _canonical(value: Any) -> str:
    """A text that equal values share: Python alone would call true and 1 equal."""
    return _written(_with_whole_numbers(value))


def _with_whole_numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_whole_numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_whole_numbers(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _fields(value: Any, path: str = "") -> list[str]:
    if value and isinstance(value, dict):
        named = [(json.dumps(key), item) for key, item in value.items()]
        return [field for key, item in named for field in _fields(item, f"{path}.{key}")]
    if value and isinstance(value, list):
        return [field for item in value for field in _fields(item, f"{path}[]")]
    return [f"{path}={_canonical(value)}"]


def _pairs(prediction: str, reference: str) -> tuple[list[str], list[str]] | None:
    """The fields of two JSON texts, never none of them; None where one cannot be read."""
    found, wanted = _json(prediction), _json(reference)
    return None if UNREAD in (found, wanted) else (_fields(found), _fields(wanted))


def _common(first: Sequence[str], second: Sequence[str]) -> int:
    return (Counter(first) & Counter(second)).total()


def _bag_f1(found: Sequence[str], wanted: Sequence[str]) -> float:
    if not found or not wanted:
        return float(not found and not wanted)
    return 2 * _common(found, wanted) / (len(found) + len(wanted))


_OVERLAP = MappingProxyType({"rouge_l": rouge_l, "chrf": chrf})
_FIELDS = MappingProxyType(
    {
        "json_validity": json_validity,
        "field_precision": field_precision,
        "field_recall": field_recall,
    }
)
_TEXT = TaskMetrics("exact_match", "token_f1", "empty", _read_text, same_text, token_f1, _OVERLAP)
TASKS: dict[Task, TaskMetrics] = {
    "classify": TaskMetrics("accuracy", "macro_f1", "no label", parse_label, str.__eq__),
    "generate": _TEXT,
    "chat": _TEXT,
    "extract": TaskMetrics(
        "exact_match", "field_f1", "no JSON", read_json, same_json, field_f1, _FIELDS
    ),
}

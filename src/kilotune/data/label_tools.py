"""What tools for labelling export, known by the shape of its rows and read as plain columns."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kilotune.data.columns.profile import NEARLY, sampled
from kilotune.data.files.table import Table
from kilotune.data.finding import finding
from kilotune.errors import KilotuneError

Values = Mapping[str, Any]


class UnlikeError(Exception):
    """Why a row of a program's export holds nothing that can be learnt from."""


@dataclass(frozen=True, slots=True)
class Export:
    """What another program writes: its name, whether a row looks so, and the row in plain columns.

    `read` raises UnlikeError for work that is no texts and answers; `instead` is what to do then.
    """

    title: str
    looks: Callable[[Values], bool]
    read: Callable[[Values], dict[str, Any]]
    instead: str = "Export texts with one answer each, as CSV"


def as_plain_rows(table: Table) -> Table:
    """The table with the rows of another program's export in plain columns, which is noted.

    Raises KilotuneError for exports that hold no texts with answers.
    """
    sample = sampled(table.rows)
    for name, export in EXPORTS.items():
        if sum(export.looks(row.values) for row in sample) < NEARLY * len(sample):
            continue
        if name in WHOLE and not all(export.looks(row.values) for row in table.rows):
            continue
        try:
            rows = tuple(
                replace(row, values=export.read(row.values) if export.looks(row.values) else {})
                for row in table.rows
            )
        except UnlikeError as fault:
            raise KilotuneError(
                f"{export.title}, of which kilotune does not read {fault}",
                where=str(table.path),
                fix=export.instead,
            ) from None
        columns = tuple(dict.fromkeys(name for row in rows for name in row.values))
        note = finding("export-read", title=export.title, columns=list(columns))
        return replace(table, rows=rows, columns=columns, findings=(*table.findings, note))
    return table


def _agreed(answers: Sequence[Any]) -> Any:
    """What all annotators answered; nothing where they differ."""
    return answers[0] if answers and all(answer == answers[0] for answer in answers) else None


def _one(values: Any) -> Any:
    """The one item of a list; a list of several stays."""
    return values[0] if isinstance(values, list) and len(values) == 1 else values


def _is_label_studio(values: Values) -> bool:
    return isinstance(values.get("data"), dict) and isinstance(values.get("annotations"), list)


# Of Label Studio's results, the key of the answer by the kind of result.
LABEL_STUDIO = {"choices": "choices", "textarea": "text", "rating": "rating"}


def _label_studio(values: Values) -> dict[str, Any]:
    """The data, and what the annotators who did not skip the task answered alike."""
    work = [each for each in values["annotations"] if isinstance(each, dict)]
    kept = [each for each in work if not each.get("was_cancelled")]
    answers: dict[str, list[Any]] = {}
    for each in kept:
        for result in each.get("result") or ():
            key = LABEL_STUDIO.get(result.get("type", ""))
            if key is None:
                raise UnlikeError(f"annotations of the kind '{result.get('type')}'")
            answer = _one(result.get("value", {}).get(key))
            answers.setdefault(str(result.get("from_name", "label")), []).append(answer)
    named = {name: _agreed(said) for name, said in answers.items()}
    if len(named) == 1 and "label" not in values["data"]:
        named = {"label": next(iter(named.values()))}
    return {**values["data"], **named, "was_cancelled": bool(work) and not kept}


def _is_argilla(values: Values) -> bool:
    return isinstance(values.get("fields"), dict) and "responses" in values


def _argilla(values: Values) -> dict[str, Any]:
    """The fields, and what the annotators who submitted answered alike."""
    given = values.get("responses") or {}
    if not isinstance(given, dict):
        raise UnlikeError("responses that are a list")
    plain = dict(values["fields"])
    states = []
    for question, responses in given.items():
        said = [each for each in responses or () if isinstance(each, dict)]
        states += [each.get("status") for each in said]
        kept = [each.get("value") for each in said if each.get("status") in (None, "submitted")]
        plain[question] = _one(_agreed(kept))
    if len(given) == 1 and "label" not in plain:
        plain["label"] = plain.pop(next(iter(given)))
    left = next((state for state in states if state not in (None, "submitted")), None)
    return {**plain, "status": "submitted" if "submitted" in states else left}


def _is_prodigy(values: Values) -> bool:
    own = {"_task_hash", "_input_hash"} & values.keys()
    return bool(own) and bool({"accept", "spans"} & values.keys())


def _prodigy(values: Values) -> dict[str, Any]:
    if values.get("spans") and "accept" not in values:
        raise UnlikeError("spans")
    kept = {n: v for n, v in values.items() if n not in {"accept", "options", "config", "spans"}}
    accepted = values.get("accept") or [None]
    return {**kept, "label": _one(accepted)}


def _is_gemini(values: Values) -> bool:
    turns = values.get("contents")
    return isinstance(turns, list) and any(isinstance(t, dict) and "parts" in t for t in turns)


def _gemini(values: Values) -> dict[str, Any]:
    turns = [
        {"role": turn.get("role") or "user", "content": _parts(turn)} for turn in values["contents"]
    ]
    told = values.get("systemInstruction") or values.get("system_instruction")
    if isinstance(told, dict):
        turns.insert(0, {"role": "system", "content": _parts(told)})
    return {"messages": turns}


def _parts(turn: Values) -> str:
    texts = []
    for part in turn.get("parts") or ():
        if not isinstance(part, dict) or not isinstance(part.get("text"), str):
            raise UnlikeError("parts that are no texts")
        texts.append(part["text"])
    return "".join(texts)


def _is_squad(values: Values) -> bool:
    answers = values.get("answers")
    return (
        isinstance(answers, dict) and isinstance(answers.get("text"), list) and "question" in values
    )


def _squad(values: Values) -> dict[str, Any]:
    texts = values["answers"]["text"]
    return {
        "context": values.get("context"),
        "question": values["question"],
        "answer": texts[0] if texts else None,
    }


def _is_ground_truth(values: Values) -> bool:
    return "source" in values and any(name.endswith("-metadata") for name in values)


def _ground_truth(values: Values) -> dict[str, Any]:
    told = next(v for n, v in values.items() if n.endswith("-metadata"))
    if not isinstance(told, dict) or "class-name" not in told:
        raise UnlikeError("jobs other than of one label a text")
    return {"text": values["source"], "label": told["class-name"]}


def _is_vertex(values: Values) -> bool:
    return "textContent" in values and isinstance(values.get("classificationAnnotation"), dict)


def _vertex(values: Values) -> dict[str, Any]:
    told = values["classificationAnnotation"]
    return {"text": values["textContent"], "label": told.get("displayName")}


def _label_list(values: Values) -> str | None:
    return next((n for n in ("label", "labels") if isinstance(values.get(n), list)), None)


def _has_list_of_one(values: Values) -> bool:
    name = _label_list(values)
    items = values[name] if name else [None, None]
    plain = len(items) <= 1 and all(isinstance(item, str) for item in items)
    return plain and any(isinstance(value, str) for value in values.values())


def _list_of_one(values: Values) -> dict[str, Any]:
    name = _label_list(values)
    return {n: (v[0] if v else None) if n == name else v for n, v in values.items()}


EXPORTS: dict[str, Export] = {
    "label-studio": Export(
        "Label Studio's full JSON",
        _is_label_studio,
        _label_studio,
        "Label whole texts (Choices, TextArea, Rating), and export them as JSON-MIN or CSV",
    ),
    "argilla": Export(
        "Argilla's records", _is_argilla, _argilla, "Export with Dataset.records.to_json()"
    ),
    "prodigy": Export(
        "Prodigy's export", _is_prodigy, _prodigy, "Label whole texts, as textcat.manual does"
    ),
    "gemini": Export(
        "Gemini's contents", _is_gemini, _gemini, "Leave rows with files and calls of tools out"
    ),
    "squad": Export("SQuAD's questions", _is_squad, _squad),
    "ground-truth": Export(
        "a Ground Truth manifest", _is_ground_truth, _ground_truth, "Write text,label as CSV"
    ),
    "vertex": Export("Vertex AI's text classification", _is_vertex, _vertex),
    "doccano": Export("labels in lists of one", _has_list_of_one, _list_of_one),
}
# Those that are so only where every row is.
WHOLE = {"doccano"}


def with_paths(table: Table, names: Sequence[str]) -> Table:
    """The table with columns of their own for `names` that are paths into objects (`data.text`)."""
    paths = [
        name
        for name in names
        if name not in table.columns and name.partition(".")[0] in table.columns
    ]
    found = [name for name in paths if any(_at(row.values, name) is not None for row in table.rows)]
    if not found:
        return table
    rows = tuple(
        replace(row, values={**row.values, **{name: _at(row.values, name) for name in found}})
        for row in table.rows
    )
    return replace(table, columns=(*table.columns, *found), rows=rows)


def _at(values: Any, path: str) -> Any:
    for key in path.split("."):
        values = values.get(key) if isinstance(values, dict) else None
    return values

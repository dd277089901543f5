"""Answers held against each other: JSON of one form, and one writing."""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from kilotune.data.checks.markup import CODE
from kilotune.data.example import Example
from kilotune.data.finding import Finding, about_rows, finding
from kilotune.data.scripts import LETTERS, SPACELESS, script
from kilotune.messages.sentences import Phrase, phrase

# Fewer answers have no form in common to depart from.
LEAST_ANSWERS = 10
# A key in nine of ten objects is a key of the form, and so is a type of nine of ten values.
USUAL_SHARE = 0.9
# When more rows than this depart from the form, there is none (keys that are data, say).
NO_FORM_SHARE = 0.5
# What is nested deeper is not compared.
DEEPEST = 8

# Answers with fewer letters (a Han sign counts three) are names, numbers or codes.
LEAST_LETTERS = 20
# A prompt with a word of the answer's script, or that asks for a translation, explains it.
LEAST_WORD = 4
TRANSLATION = re.compile(
    r"translat|翻译|翻譯|译成|譯成|英文|英语|英語|中文|汉语|日语|日文|法语|德语|俄语|拼音|"
    r"pinyin|\bin (?:english|chinese|japanese|korean|russian|arabic|hindi|thai|greek|hebrew)\b",
    re.IGNORECASE,
)


def invalid_json(examples: Sequence[Example]) -> list[Finding]:
    """Answers of an extraction that are no JSON."""
    rows = [e.id for e in examples if (e.answer or "").strip() and _parsed(e.answer) is INVALID]
    return about_rows("invalid-json", rows)


INVALID = object()


def _parsed(answer: str | None) -> Any:
    try:
        return json.loads(answer or "", parse_constant=_refuse)
    except (ValueError, RecursionError):
        return INVALID


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def json_schema(examples: Sequence[Example]) -> list[Finding]:
    """JSON answers whose keys or types are not those of nearly all others.

    A row departs when it lacks a key that nine of ten objects have, has a value of another type
    than nine of ten under that key (null fits any), or has a key that no other row has.
    """
    forms = {e.id: _form(value) for e in examples if (value := _parsed(e.answer)) is not INVALID}
    if len(forms) < LEAST_ANSWERS:
        return []
    departures = _departures(forms)
    if not departures or len(departures) > NO_FORM_SHARE * len(forms):
        return []
    named = [phrase("row-why", row=row, why=why) for row, why in departures.items()]
    return [finding("json-schema", departures, named=named)]


Form = dict[str, set[str]]


def _form(value: Any) -> Form:
    """The types of the values at each path (`$.items[].name`) of an answer."""
    form: Form = defaultdict(set)
    for path, kind in _paths("$", value):
        form[path].add(kind)
    return form


def _paths(path: str, value: Any, depth: int = 0) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        yield path, "object"
        for key, item in value.items() if depth < DEEPEST else ():
            yield from _paths(f"{path}.{key}", item, depth + 1)
    elif isinstance(value, list):
        yield path, "list"
        for item in value if depth < DEEPEST else ():
            yield from _paths(f"{path}[]", item, depth + 1)
    else:
        yield path, _kind(value)


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    return "text" if isinstance(value, str) else "number"


def _departures(forms: dict[str, Form]) -> dict[str, Phrase]:
    """The rows that depart from the usual form, and how each first does."""
    rows_with: Counter[str] = Counter(path for form in forms.values() for path in form)
    kinds: dict[str, Counter[str]] = defaultdict(Counter)
    for form in forms.values():
        for path, found in form.items():
            kinds[path].update(found - {"null"})
    objects = {path: count["object"] for path, count in kinds.items()}
    usual = {
        path: kind
        for path, count in kinds.items()
        for kind, times in count.items()
        if times >= USUAL_SHARE * rows_with[path] and rows_with[path] >= LEAST_ANSWERS
    }
    expected = {
        path: parent
        for path, count in rows_with.items()
        if (parent := path.rpartition(".")[0])
        and not path.endswith("[]")
        and count >= USUAL_SHARE * objects.get(parent, 0)
        and count >= LEAST_ANSWERS
    }
    departing = {}
    for row, form in forms.items():
        why = _departure(form, usual, expected, rows_with)
        if why:
            departing[row] = why
    return departing


def _departure(
    form: Form, usual: dict[str, str], expected: dict[str, str], rows_with: Counter[str]
) -> Phrase | None:
    for path, found in form.items():
        wanted = usual.get(path)
        if wanted and found - {wanted, "null"}:
            types = " and ".join(sorted(found - {wanted}))
            return phrase("json-type", path=path, types=types, usual=wanted)
    for path, parent in expected.items():
        if path not in form and "object" in form.get(parent, ()):
            return phrase("json-lacks", path=path)
    alone = next((path for path in form if rows_with[path] == 1), None)
    return phrase("json-alone", path=alone) if alone else None


def answer_script(examples: Sequence[Example]) -> list[Finding]:
    """Answers in another script than nine of ten to prompts of the same script.

    So English answers to English prompts beside Chinese answers to Chinese prompts are as they
    should be, and so are translations. Code in fences is not read; short answers, mixed ones, and
    those whose script the prompt uses or asks for, are left alone.
    """
    scripts = [
        (example, script(example.text), script(_prose(example.answer), LEAST_LETTERS))
        for example in examples
    ]
    pairs = Counter((asked, answered) for _, asked, answered in scripts if asked and answered)
    totals: Counter[str] = Counter()
    for (asked, _), count in pairs.items():
        totals[asked] += count
    usual = {
        asked: answered
        for (asked, answered), count in pairs.items()
        if count >= max(LEAST_ANSWERS, USUAL_SHARE * totals[asked])
    }
    odd = {
        example.id: usual[asked]
        for example, asked, answered in scripts
        if asked in usual
        and answered
        and answered != usual[asked]
        and (answered == asked or not _explained(example.text, answered))
    }
    return about_rows("answer-script", list(odd), usual=sorted(set(odd.values())))


def _prose(answer: str | None) -> str:
    return CODE.sub("", answer or "")


def _explained(prompt: str, answered: str) -> bool:
    """Whether the prompt itself uses the answer's script, or asks for a language."""
    words = LETTERS.findall(SPACELESS.sub(" ", prompt))
    signs = "".join(SPACELESS.findall(prompt))
    return bool(TRANSLATION.search(prompt)) or any(
        script(word) == answered for word in (*words, signs) if len(word) >= LEAST_WORD
    )

"""The same text twice: in one file, with another label, or on both sides of a split."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence, Set
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from kilotune.data.checks.near import THRESHOLD, near_pairs
from kilotune.data.example import Example, Image, comparable
from kilotune.data.finding import Finding, Severity, about_rows, finding
from kilotune.messages.sentences import Phrase, phrase


class PromptKey(NamedTuple):
    """What an example asks: the text that is compared, and the system message and images with it.

    Long system messages that all examples share would make every pair look alike, so they are
    compared as a whole: another one makes another question.
    """

    text: str
    context: tuple[str, ...]


def asked(example: Example, *, system: bool = True) -> PromptKey:
    """What two examples must share to be the same question.

    Without `system` whatever the system message says: a held-out question is no new one because
    it was trained on behind another system message.
    """
    said: list[str] = []
    context: list[str] = []
    for message in example.prompt:
        if message.role != "system":
            said.append(message.text)
        elif system:
            context.append(message.text)
    if any(not isinstance(message.content, str) for message in example.prompt):
        context += [_identity(image) for message in example.prompt for image in message.images]
    text = said[0] if len(said) == 1 else "\n".join(said)
    return PromptKey(comparable(text), tuple(context))


def _identity(image: Image) -> str:
    """What two images have in common that are one: the same bytes, or the same file."""
    if image.data is not None:
        return hashlib.sha256(image.data).hexdigest()
    return os.path.abspath(image.path)  # a training and a test file can be in two folders


def repeats(examples: Sequence[Example]) -> list[Finding]:
    """Rows that repeat another, nearly or exactly, and texts that have two labels or answers."""
    return _repeats(examples, "warning")


def free_repeats(examples: Sequence[Example]) -> list[Finding]:
    """The same of free answers, of which several may be right."""
    return _repeats(examples, "note")


def _repeats(examples: Sequence[Example], conflict: Severity) -> list[Finding]:
    by_question: dict[PromptKey, list[Example]] = defaultdict(list)
    for example in examples:
        question = asked(example)
        if question.text or example.images:
            by_question[question].append(example)
    conflicting = [g for g in by_question.values() if len(set(map(_target, g))) > 1]
    findings = []
    if conflicting:
        rows = [example.id for group in conflicting for example in group]
        targets = phrase("labels" if examples[0].label is not None else "answers")
        texts = len(conflicting)
        findings.append(
            finding("conflicting-labels", rows, severity=conflict, texts=texts, targets=targets)
        )
    findings += exact_repeats(examples)
    exact = {row for finding in findings if finding.code == "duplicate" for row in finding.rows}
    return findings + _near_repeats(by_question, exact)


def exact_repeats(examples: Iterable[Example]) -> list[Finding]:
    """Rows that say what another says, to the letter; spaces around a text are no part of it."""
    seen: set[Hashable] = set()
    rows = []
    for example in examples:
        if not asked(example).text and not example.images:
            continue
        said = (
            example.label,
            *(
                (m.role, *(p.strip() if isinstance(p, str) else _identity(p) for p in m.parts))
                for m in example.messages
            ),
        )
        if said in seen:
            rows.append(example.id)
        seen.add(said)
    return about_rows("duplicate", rows)


def _target(example: Example) -> str | None:
    if example.label is not None or example.answer is None:
        return example.label
    return comparable(example.answer)


def _near_repeats(
    by_question: Mapping[PromptKey, Sequence[Example]], exact: Set[str]
) -> list[Finding]:
    """Rows that nearly repeat one before, of which those not in `exact` have the same answer."""
    clusters = _clusters(len(by_question), _near(list(by_question)))
    seen: dict[int, Example] = {}
    near: list[str] = []
    named: list[Phrase] = []
    relabelled = 0
    for group, cluster in zip(by_question.values(), clusters, strict=True):
        original = seen.setdefault(cluster, group[0])
        alike = group if len(set(map(_target, group))) == 1 else group[:1]
        for example in alike:
            if example is not original and example.id not in exact:
                near.append(example.id)
                named.append(phrase("row-why", row=example.id, why=original.id))
                relabelled += example.label != original.label
    others = phrase("relabelled", rows=relabelled) if relabelled else ""
    return about_rows("near-duplicate", near, alike=THRESHOLD, relabelled=others, named=named)


def check_leakage(
    train: Iterable[Example], held_out: Iterable[Example], name: str, source: str = "training"
) -> list[Finding]:
    """What of `held_out` (called `name`) also stands in `train` (called `source`).

    The same text, nearly the same text, or another text of the same group.
    """
    train, held_out = list(train), list(held_out)
    questions = [asked(example, system=False) for example in held_out]
    known = dict.fromkeys(asked(example, system=False) for example in train)
    continued = _continued(train, held_out)
    exact = [
        example.id
        for example, question in zip(held_out, questions, strict=True)
        if question in known or example.id in continued
    ]
    near_known = _near_known(list(known), questions)
    near = [
        example.id
        for example, question in zip(held_out, questions, strict=True)
        if question in near_known
    ]
    groups = {example.group for example in train if example.group}
    grouped = [example.id for example in held_out if example.group in groups]
    return [
        *about_rows("leakage", exact, part=name, source=source),
        *about_rows("near-leakage", near, part=name, source=source, alike=THRESHOLD),
        *about_rows("group-leakage", grouped, part=name, source=source),
    ]


def _near_known(known: list[PromptKey], questions: Iterable[PromptKey]) -> set[PromptKey]:
    """Which of `questions` nearly repeat one that is `known`, and are not known themselves."""
    exact = set(known)
    fresh = list(dict.fromkeys(q for q in questions if q.text and q not in exact))
    clusters = _clusters(len(known) + len(fresh), _near([*known, *fresh]))
    taken = set(clusters[: len(known)])
    return {
        question
        for question, cluster in zip(fresh, clusters[len(known) :], strict=True)
        if cluster in taken
    }


def _continued(train: Sequence[Example], held_out: Sequence[Example]) -> set[str]:
    """Which conversations of `held_out` one in `train` continues, or begins."""
    whole = {exchanges(example)[-1] for example in train if exchanges(example)}
    inside = {start for example in train for start in exchanges(example)}
    return {
        example.id
        for example in held_out
        if (starts := exchanges(example)) and (starts[-1] in inside or whole & set(starts))
    }


def exchanges(example: Example) -> list[bytes]:
    """A digest of the conversation up to each of its answers, system messages aside.

    A conversation exported turn by turn is several rows, each the beginning of the next: what one
    asks for stands in another's history.
    """
    digest = hashlib.blake2b(digest_size=16)
    starts = []
    for message in example.messages:
        if message.role != "system":
            said = [p if isinstance(p, str) else _identity(p) for p in message.parts]
            digest.update(repr((message.role, [comparable(text) for text in said])).encode())
            if message.role == "assistant":
                starts.append(digest.copy().digest())
    return starts


def components(
    examples: Sequence[Example], questions: Sequence[PromptKey] | None = None
) -> list[int]:
    """The number of what each example must stay together with.

    One number for a group, for a repeated text, for texts that nearly repeat each other, and for
    a conversation with those that continue it. System messages make no difference: `questions`,
    where they are known, are those without.
    """
    places: dict[Hashable, list[int]] = defaultdict(list)
    if questions is None:
        questions = [asked(example, system=False) for example in examples]
    for place, (example, question) in enumerate(zip(examples, questions, strict=True)):
        places[question].append(place)
        if example.group:
            places["group", example.group].append(place)
    different = [key for key in places if isinstance(key, PromptKey)]
    links = [link for same in places.values() for link in pairwise(same)]
    whole: dict[bytes, int] = {}
    starts = [exchanges(example) for example in examples]
    for place, own in enumerate(starts):
        if own:
            whole.setdefault(own[-1], place)
    links += [(whole[s], i) for i, own in enumerate(starts) for s in own if s in whole]
    links += [(places[different[i]][0], places[different[j]][0]) for i, j in _near(different)]
    return _clusters(len(examples), links)


def first_of_each(examples: Sequence[Example]) -> list[Example]:
    """Of examples that repeat each other, exactly or nearly, the first; groups do not count."""
    numbers = components([replace(example, group=None) for example in examples])
    first: dict[int, Example] = {}
    for example, number in zip(examples, numbers, strict=True):
        first.setdefault(number, example)
    return list(first.values())


def _near(questions: Sequence[PromptKey]) -> list[tuple[int, int]]:
    return near_pairs([q.text for q in questions], [q.context for q in questions])


def _clusters(count: int, links: Sequence[tuple[int, int]]) -> list[int]:
    """The connected component of each of `count` places."""
    left, right = np.array(links, dtype=np.int64).reshape(-1, 2).T
    graph = coo_matrix((np.ones(len(left), dtype=np.int8), (left, right)), shape=(count, count))
    numbers: list[int] = connected_components(graph, directed=False)[1].tolist()
    return numbers

"""How each closed label is spelt to the model, where otherwise than in the data."""

import re
from collections.abc import Callable, Mapping, Sequence
from string import ascii_uppercase

from kilotune.data.example import plain_label
from kilotune.errors import KilotuneError

SETTING = "data.label_wording"
# Between the words of labels written as names are in code: `money-fx`, `sci_tech`, `Sci/Tech`.
JOINTS = re.compile(r"[\s_/.\-]+")
# `WorldNews` and `HTMLPage`, not `NASA`.
HUMPS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")

Spelling = Mapping[str, str]


def lower(labels: Sequence[str]) -> dict[str, str]:
    """Every label without capitals."""
    return {label: label.lower() for label in labels}


def words(labels: Sequence[str]) -> dict[str, str]:
    """Names as in code taken apart into words, without capitals but for abbreviations."""
    return {label: _words(label) for label in labels}


def letters(labels: Sequence[str]) -> dict[str, str]:
    """A, B, C in the order of the labels, as the options of a question.

    Raises KilotuneError for more labels than letters.
    """
    if len(labels) > len(ascii_uppercase):
        raise KilotuneError(
            f"{len(labels)} labels are more than there are letters",
            where=f"{SETTING}=letters",
            fix="Choose another wording",
        )
    return dict(zip(labels, ascii_uppercase, strict=False))


WORDINGS: dict[str, Callable[[Sequence[str]], dict[str, str]]] = {
    "as_is": lambda labels: {},
    "lower": lower,
    "words": words,
    "letters": letters,
}


def spelling(how: str | Mapping[str, str], labels: Sequence[str]) -> dict[str, str]:
    """What each of `labels` is called to the model by `how`, a name of WORDINGS or a mapping.

    Those that are called by their own names are left out. Raises KilotuneError where two would be
    read as the same answer, or one as none, and where a mapping names what is no label.
    """
    if isinstance(how, str):
        called = WORDINGS[how](labels)
    elif unknown := [label for label in how if label not in labels]:
        raise KilotuneError(
            f"no label '{unknown[0]}'; the labels are {', '.join(labels) or 'none'}",
            where=SETTING,
            fix="Write each label as the data have it",
        )
    else:
        called = dict(how)
    if not called:  # what is wrong with the labels themselves is what `check` finds
        return {}
    read: dict[str, str] = {}
    for label in labels:
        form = plain_label(called.get(label, label))
        if not form or form in read:
            other = f"'{read[form]}' and '{label}' would be one answer" if form else (
                f"'{label}' would be no answer"
            )  # fmt: skip
            raise KilotuneError(other, where=SETTING, fix="Give each a wording of its own")
        read[form] = label
    return {label: name for label, name in called.items() if name != label}


def _words(label: str) -> str:
    parts = [part for joint in JOINTS.split(label) for part in HUMPS.split(joint) if part]
    kept = [part if len(part) > 1 and part.isupper() else part.lower() for part in parts]
    return " ".join(kept) or label

"""Files that kilotune has no format for, told by what they hold, each with what to do about it."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from kilotune.data.columns.profile import NEARLY, profiles, sampled
from kilotune.data.columns.unread import is_of_media
from kilotune.data.files.table import Table
from kilotune.data.turns import ROLE_NAMES, TOOL_ROLES, is_turn
from kilotune.errors import some


@dataclass(frozen=True, slots=True)
class Nature:
    """What a file is that has no format: in words, and what to do about it."""

    what: str
    fix: str


# What stands before turns in texts that hold whole conversations.
SPEAKERS: dict[str, re.Pattern[str]] = {
    "ChatML": re.compile(r"<\|im_start\|>"),
    "Llama 3": re.compile(r"<\|start_header_id\|>"),
    "Llama 2 or Mistral": re.compile(r"\[INST\]"),
    "Gemma": re.compile(r"<start_of_turn>"),
    "Zephyr or Phi": re.compile(r"<\|(?:user|assistant)\|>"),
    "### Human / ### Assistant": re.compile(
        r"^### ?(?:Human|User|Instruction|问题|用户).*^### ?(?:Assistant|Response|Bot|回答|助手)",
        re.DOTALL | re.MULTILINE,
    ),
    "Human: / Assistant:": re.compile(
        r"(?:^(?:Q|Question|Customer|问|用户|用户问)|\b(?:Human|User|USER))\s*[:：].*"
        r"(?:^(?:A|Answer|Agent|答|助手|客服)|\b(?:Assistant|ASSISTANT|AI|Bot|GPT))\s*[:：]",
        re.DOTALL | re.MULTILINE,
    ),
}
# Columns of a better and a worse answer, of tokens and their tags, of numbers of tokens.
BETTER_AND_WORSE = (
    ("chosen", "rejected"), ("preferred", "dispreferred"), ("better", "worse"), ("win", "lose"),
    ("response_a", "response_b"), ("response_0", "response_1"), ("answer_a", "answer_b"),
    ("completion_a", "completion_b"), ("preferred_output", "non_preferred_output"),
)  # fmt: skip
TAGGED = {"ner_tags", "pos_tags", "tags", "bio", "entities", "spans", "labels_bio"}
# Columns of texts that are lists of their words.
CUT = {"tokens", "words", "词"}
ROLE_COLUMNS = ("role", "speaker", "from", "sender")
TURN_COLUMNS = ("content", "text", "message", "value")


def nature(table: Table) -> Nature | None:
    """What a file without a format is, where that can be told; None where not."""
    return next((told for ask in NATURES if (told := ask(table))), None)


def _of_preferences(table: Table) -> Nature | None:
    names = {name.casefold(): name for name in table.columns}
    for better, worse in BETTER_AND_WORSE:
        if not {better, worse} <= names.keys():
            continue
        what = f"preference pairs (columns '{names[better]}' and '{names[worse]}')"
        values = [row.values.get(names[better]) for row in sampled(table.rows)]
        whole = any(isinstance(v, list) and len(v) > 1 and all(map(is_turn, v)) for v in values)
        field = "messages" if whole else "completion"
        if better[-2:] in {"_a", "_0"}:
            return Nature(what, f"Name the better answer's column: --column {field}=NAME")
        return Nature(
            f"{what}, and supervised tuning learns from one answer",
            f"Learn from the better one: --column {field}={names[better]}",
        )
    return None


def _of_conversations(table: Table) -> Nature | None:
    for name, column in profiles(table.columns, table.rows).items():
        for template, pattern in SPEAKERS.items():
            texts = column.texts
            if texts and sum(map(bool, map(pattern.search, texts))) >= NEARLY * len(texts):
                return Nature(
                    f"the column '{name}' holds whole conversations in one text, written in a chat "
                    f"template already ({template})",
                    "Take the template's markers out and write the turns as messages: "
                    '{"messages": [{"role": "user", "content": "…"}, '
                    '{"role": "assistant", "content": "…"}]}; the model\'s own template is put '
                    "around them",
                )
    return None


def _of_single_turns(table: Table) -> Nature | None:
    names = {name.casefold(): name for name in table.columns}
    role = next((names[n] for n in ROLE_COLUMNS if n in names), None)
    text = next((names[n] for n in TURN_COLUMNS if n in names), None)
    if role is None or text is None:
        return None
    said = profiles([role], table.rows)[role]
    if not said.counts or not said.counts.keys() <= ROLE_NAMES.keys() | TOOL_ROLES:
        return None
    return Nature(
        f"a turn in each row (columns '{role}' and '{text}'), where a whole conversation belongs",
        "Gather the turns of each conversation in one row: "
        '{"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]}',
    )


def _of_tags(table: Table) -> Nature | None:
    tagged = [name for name in table.columns if name.casefold() in TAGGED]
    values = [row.values.get(name) for row in sampled(table.rows) for name in tagged]
    if not any(isinstance(value, list) for value in values):
        return None
    return Nature(
        f"labels of single words or spans (column {some(tagged)})",
        "Write what is to be found as JSON, in a column of answers: --column prompt=TEXT --column "
        "completion=JSON",
    )


def _of_words(table: Table) -> Nature | None:
    for name, column in profiles(table.columns, table.rows).items():
        lists = [cell for cell in column.cells if isinstance(cell, list)]
        cut = [all(isinstance(w, str) and " " not in w for w in each) for each in lists]
        if name.casefold() in CUT and lists and all(cut):
            return Nature(
                f"texts that are cut into words already (column '{name}')",
                "Write each text as one, its words joined",
            )
    return None


def _of_recordings(table: Table) -> Nature | None:
    for name, column in profiles(table.columns, table.rows).items():
        if is_of_media(column):
            return Nature(
                f"recordings or videos (column '{name}'), which kilotune cannot read",
                "Write what is heard or seen as text, and what is to be answered beside it",
            )
    return None


def _of_annotators(table: Table) -> Nature | None:
    every = profiles(table.columns, table.rows)
    closed = {name: each for name, each in every.items() if each.is_closed and not each.truths}
    for name, one in closed.items():
        alike = [other for other, each in closed.items() if each.counts.keys() == one.counts.keys()]
        if len(alike) > 1:
            return Nature(
                f"labels of several annotators (columns {some(alike)})",
                f"Decide on one label for each row, or take one annotator's: --label {name}",
            )
    return None


def _of_one_hot(table: Table) -> Nature | None:
    every = profiles(table.columns, table.rows)
    flags = [name for name, each in every.items() if len(each.truths) == 2]
    if len(flags) < 2:
        return None
    return Nature(
        f"a column of yes and no for each label ({some(flags)})",
        "Write the label's name in one column, such as label; of several labels a JSON list",
    )


def _of_token_ids(table: Table) -> Nature | None:
    if "input_ids" not in table.columns:
        return None
    return Nature(
        "numbers of tokens (column 'input_ids'), made for one model's tokenizer",
        "Give the texts that they were made of",
    )


def _of_objects(table: Table) -> Nature | None:
    inside: dict[str, None] = {}
    for row in sampled(table.rows):
        for name, value in row.values.items():
            if isinstance(value, dict):
                inside |= dict.fromkeys(f"{name}.{key}" for key in value)
    if not inside:
        return None
    return Nature(
        f"values inside objects ({some(list(inside))})",
        "Name them by their path: --column prompt=DATA.TEXT --column completion=DATA.ANSWER",
    )


NATURES: tuple[Callable[[Table], Nature | None], ...] = (
    _of_preferences,
    _of_token_ids,
    _of_tags,
    _of_conversations,
    _of_single_turns,
    _of_recordings,
    _of_words,
    _of_annotators,
    _of_one_hot,
    _of_objects,
)

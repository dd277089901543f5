"""The schemas that rows come in: how each is recognised, read into messages and written.

`FORMATS` is the registry; adding a format is adding an entry.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kilotune.data.cells import (
    Cells,
    Values,
    read_alpaca,
    read_conversation,
    read_llava,
    read_prompt_completion,
    read_query_response,
    read_text_label,
)
from kilotune.data.columns.joined import Columns, names_in
from kilotune.data.columns.usual import (
    COMPLETIONS,
    IMAGES,
    INPUTS,
    INSTRUCTIONS,
    LABELS,
    OUTPUTS,
    PROMPTS,
    SYSTEMS,
    TEXTS,
)
from kilotune.data.example import Example, Message
from kilotune.data.row_faults import RowError
from kilotune.data.serialise import (
    write_alpaca,
    write_llava,
    write_messages,
    write_prompt_completion,
    write_query_response,
    write_sharegpt,
    write_text_label,
)
from kilotune.data.turns import inline_images, is_turn, listed, role_of

# Every conversation format may have these beside its own.
# Weights are read where a column is named for them: one of that name may be of parcels.
WEIGHTED: dict[str, tuple[str, ...]] = {"weight": ()}
SHARED = {"system": SYSTEMS, "images": IMAGES, "tools": ("tools",), **WEIGHTED}

# Rows of a file that are looked at to recognise its format.
SAMPLE_ROWS = 50
# A format's columns are in so many of them.
USUAL_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class Format:
    """One schema. `fields` are its fields with their usual columns; `needs` must have one.

    `answers` are those of `needs` that hold answers, which new texts lack. `fits` looks at sample
    rows where the columns alone do not tell.
    """

    title: str
    fields: Mapping[str, tuple[str, ...]]
    needs: tuple[str, ...]
    read: Callable[[Cells], list[Message]]
    write: Callable[[Sequence[Example]], list[dict[str, Any]]]
    answers: tuple[str, ...] = ()
    fits: Callable[[Sequence[Values], Mapping[str, Columns]], bool] = lambda rows, columns: True

    def columns(self, names: Sequence[str], given: Mapping[str, Columns]) -> dict[str, Columns]:
        """The column of each field: the one given, else the first usual name the file has."""
        taken = {name for columns in given.values() for name in names_in(columns)}
        by_name = {name.casefold(): name for name in reversed(names) if name not in taken}
        found = {
            field: given[field]
            if field in given
            else next((by_name[name] for name in usual if name in by_name), None)
            for field, usual in self.fields.items()
        }
        return {field: column for field, column in found.items() if column is not None}

    def lacking(self, columns: Mapping[str, Columns], answered: bool) -> list[str]:
        """What it needs and has no column; pictures need no text, questions no answers."""
        pictured = ("text", "prompt") if "images" in columns else ()
        spared = {*(() if answered else self.answers), *pictured}
        return [f for f in self.needs if f not in columns and f not in spared]


def detect(
    names: Sequence[str], rows: Sequence[Values], given: Mapping[str, Columns], answered: bool
) -> str | None:
    """The name of the first format that has its columns and fits the rows; None for none."""
    sample = rows[:SAMPLE_ROWS]
    for name, form in FORMATS.items():
        columns = form.columns(names, given)
        if (
            set(given) <= set(form.fields)
            and not form.lacking(columns, answered)
            and _usual([columns[field] for field in form.needs if field in columns], sample)
            and form.fits(sample, columns)
        ):
            return name
    return None


def _usual(columns: Sequence[Columns], rows: Sequence[Values]) -> bool:
    """Whether enough rows have all these columns: a stray row makes no format of a file.

    Of several that are one field, any will do.
    """
    wanted = [names_in(each) for each in columns]
    having = sum(all(any(name in values for name in names) for names in wanted) for values in rows)
    return having >= USUAL_SHARE * len(rows)


def _is_list_of_turns(rows: Sequence[Values], columns: Mapping[str, Columns]) -> bool:
    turns = list(_sample_turns(rows, columns))
    return any(map(is_turn, turns))


def _is_sharegpt(rows: Sequence[Values], columns: Mapping[str, Columns]) -> bool:
    turns = list(_sample_turns(rows, columns))
    return any(map(is_turn, turns)) and (
        str(columns["messages"]).casefold() != "messages"
        or any("from" in turn for turn in turns if is_turn(turn))
    )


def _is_llava(rows: Sequence[Values], columns: Mapping[str, Columns]) -> bool:
    turns = [turn for turn in _sample_turns(rows, columns) if is_turn(turn)]
    return bool(turns) and ("images" in columns or any(map(_has_inline_image, turns)))


def _has_inline_image(turn: Values) -> bool:
    body = turn.get("content") or turn.get("value")
    if isinstance(body, str):
        return role_of(turn) == "user" and bool(inline_images(body))
    parts = body if isinstance(body, list) else []
    return any(isinstance(part, dict) and "type" not in part for part in parts)


def _sample_turns(rows: Sequence[Values], columns: Mapping[str, Columns]) -> Iterable[Any]:
    for values in rows:
        try:
            turns = listed(Cells(values, columns, "").nested("messages"))
        except RowError:
            continue
        yield from turns if isinstance(turns, list) else []


def _has_no_text_and_label(rows: Sequence[Values], columns: Mapping[str, Columns]) -> bool:
    """Columns called just that are meant, whatever else there is."""
    names = {name.casefold() for values in rows[:1] for name in values}
    return not {"text", "label"} <= names


# In the order in which they are recognised: what needs more comes first.
FORMATS: dict[str, Format] = {
    "llava": Format(
        "LLaVA or Qwen-VL conversations with images",
        {"messages": ("conversations", "messages", "conversation"), **SHARED},
        ("messages",),
        read_llava,
        write_llava,
        fits=_is_llava,
    ),
    "sharegpt": Format(
        "ShareGPT conversations",
        {"messages": ("conversations", "conversation", "messages"), **SHARED},
        ("messages",),
        read_conversation,
        write_sharegpt,
        fits=_is_sharegpt,
    ),
    "messages": Format(
        "OpenAI messages",
        {"messages": ("messages", "conversations", "conversation"), **SHARED},
        ("messages",),
        read_conversation,
        write_messages,
        fits=_is_list_of_turns,
    ),
    "query-response": Format(
        "query/response rows",
        {"query": ("query",), "response": ("response",), "history": ("history",), **SHARED},
        ("query", "response"),
        read_query_response,
        write_query_response,
        answers=("response",),
    ),
    "alpaca": Format(
        "Alpaca instructions",
        {
            "instruction": INSTRUCTIONS,
            "input": INPUTS,
            "output": OUTPUTS,
            "history": ("history",),
            **SHARED,
        },
        ("instruction", "output"),
        read_alpaca,
        write_alpaca,
        answers=("output",),
    ),
    "prompt-completion": Format(
        "prompt/completion rows",
        {
            "prompt": PROMPTS,
            "completion": COMPLETIONS,
            **SHARED,
        },
        ("prompt", "completion"),
        read_prompt_completion,
        write_prompt_completion,
        answers=("completion",),
        fits=_has_no_text_and_label,
    ),
    "text-label": Format(
        "text and label columns",
        {"text": TEXTS, "label": LABELS, "images": IMAGES, **WEIGHTED},
        ("text", "label"),
        read_text_label,
        write_text_label,
        answers=("label",),
    ),
}

"""Columns that nothing is read from, judged by what they hold and what leaving it out would do.

`KINDS` is the table of kinds: each looks at one column, beside those that are read, and says with
which finding, how bad, and by which option it would be read. The first that knows a column has it.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from kilotune.data.columns.joined import Columns, names_in, text_in
from kilotune.data.columns.profile import NEARLY, Profile, part_of, profiles, sampled
from kilotune.data.columns.usual import (
    JOINED_FIELDS,
    LEAST_ROWS,
    SYSTEMS,
    is_of_pictures,
)
from kilotune.data.columns.verdict_words import BAD, GOOD, OPEN, PLAIN, word
from kilotune.data.example import Task, comparable
from kilotune.data.files.table import Row
from kilotune.data.finding import Finding, Severity, finding
from kilotune.data.turns import is_turn

# Formats with a field for the turns before the question, as pairs.
WITH_HISTORY = frozenset({"alpaca", "query-response"})
# Columns that kilotune itself writes into files.
OWN = frozenset(
    {"prediction", "probability", "not_answered", "rank", "uncertainty", "why", "origin", "check"}
)
# A text that differs by row does so in most of them.
DIFFERENT_SHARE = 0.5
# The unread text holds the answer of so many rows whose prompt does not: it is what is asked about.
EVIDENCE_SHARE = 0.5
LEAST_ANSWER = 3
# Two texts with so many words in common are versions of one.
ALIKE = 0.7
# So many rows that nobody wants make training plainly wrong.
MANY = 0.05
SHOWN = 60

VIDEO_OR_SOUND = re.compile(
    r"[^\n]+\.(?:mp4|mkv|mov|avi|webm|mpe?g|flv|wmv|wav|mp3|flac|ogg|opus|m4a|aac)", re.IGNORECASE
)
DOCUMENT = re.compile(r"(?!\w+://)[^\n]+\.(?:pdf|docx?|pptx?|odt|rtf|html?)", re.IGNORECASE)
MEDIA_NAMES = frozenset({"video", "videos", "audio", "audios", "speech", "sound", "视频", "音频"})
MEDIA_MARKS = re.compile(r"<(?:video|audio|speech|sound)>", re.IGNORECASE)
PICTURE_NAMES = frozenset({"image", "images", "picture", "photo", "图片"})

# Names of columns of true and false, by what true says of the row.
TRUE_IS_BAD = re.compile(
    r"(?:was_|is_|to_)?(?:cancell?ed|skipped|skip|discard(?:ed)?|delet(?:ed?|e)|reject(?:ed)?|"
    r"ignored?|flagged|invalid|excluded?|removed?|bad|wrong|duplicate|garbage|丢弃|删除|作废)"
)
TRUE_IS_GOOD = re.compile(
    r"(?:was_|is_|human_)?(?:accept(?:ed)?|approved?|correct|valid|verified|reviewed|good|gold|"
    r"keep|included?|liked?|helpful|thumbs?_?up|thumbs|desirable|confirmed|ok|通过|有效|正确)"
)
OF_THE_ROW = re.compile(r"(?:was_|is_)?(?:verified|valid|helpful|liked?|good|included?)")
# A verdict beside an answer, as trainers of preferences have it; a column of such a name says how
# good an answer is, and not what the row is about.
LABELS_OF_ANSWERS = re.compile(r"label|feedback|reward|thumbs?|rating|score|vote|desirable")
RATINGS = re.compile(
    r"(?:\w+_)?(?:rating|ratings|score|scores|stars|quality|reward|helpfulness|votes?|upvotes|"
    r"confidence|agreement|preference|评分|得分|质量)(?:_\w+)?"
)

# Texts about the answer, written beside it: nothing that the question needs.
REMARKS = re.compile(
    r"(?:\w+_)?(?:explanations?|rationales?|reasons?|reasoning|cot|chain_of_thought|thoughts?|"
    r"thinking|solution|analysis|notes?|comments?|remarks?|justification|critique|feedback|"
    r"解析|理由|备注|说明|思考)(?:_\w+)?"
)
WORSE = re.compile(
    r"(?:\w+_)?(?:rejected|dispreferred|worse|lose|loser|chosen|preferred|better|win|winner|"
    r"other_answers?|distractors?|incorrect_answers?|wrong_answers?)(?:_\w+)?|"
    r"(?:response|answer|completion|output)s?_[b-z1-9]"
)
OPTIONS = re.compile(
    r"(?:answer_)?(?:options?|choices?|candidates|选项)|(?:option|choice)[ _-]?\w|[A-E]"
)
WEIGHTS = re.compile(r"(?:sample_|example_|loss_|row_)?weights?|loss_scale|权重")
PARENTS = re.compile(r"(?:\w+_)?(?:parent|reply_to|in_reply_to|prev|previous|root)(?:_\w*)?", re.I)
IDENTIFIERS = re.compile(r"(?:\w+[ _-])?(?:id|ids|uuid|guid|key|hash|编号)", re.IGNORECASE)


@dataclass(frozen=True)
class FileReader:
    """How a file is read: the format, its columns, the task, and which rows are kept."""

    format: str
    columns: Mapping[str, Columns]
    task: Task
    keep: tuple[str, ...] = ()

    @property
    def asked(self) -> Columns | None:
        """The columns of the prompt, where it has some of its own."""
        field = JOINED_FIELDS.get(self.format, "")
        found = self.columns.get(field) or self.columns.get("instruction")
        return found if self.format in JOINED_FIELDS else None

    @property
    def answer(self) -> str | None:
        """The column of answers, where there is one."""
        fields = ("label", "completion", "response", "output")
        found = [names_in(self.columns[name])[0] for name in fields if name in self.columns]
        return found[0] if found else None

    def read_too(self, *columns: str, before: bool = True) -> str:
        """The options that read more columns, before the prompt's own or behind it."""
        field = JOINED_FIELDS.get(self.format, "system")
        own = names_in(self.columns.get(field, ()))
        ordered = (*columns, *own) if before else (*own, *columns)
        start = "--text " if self.format == "text-label" else f"--column {field}="
        return " ".join(_option(start, name) for name in ordered)


def _option(start: str, column: str) -> str:
    return f"{start}'{column}'" if " " in column else f"{start}{column}"


@dataclass(frozen=True)
class Seen:
    """What is beside an unread column: the sampled rows, their prompts and answers."""

    reader: FileReader
    rows: Sequence[Row]
    sample: Sequence[Row]
    others: Mapping[str, Profile]
    unread: tuple[str, ...]

    @cached_property
    def prompts(self) -> list[str]:
        """What is asked in each sampled row, of any format."""
        columns = self.reader.columns
        fields = ("instruction", JOINED_FIELDS.get(self.reader.format, "messages"))
        names = [name for field in fields for name in names_in(columns.get(field, ()))]
        return ["\n".join(text_in(row.values.get(n)) for n in names) for row in self.sample]

    @cached_property
    def answers(self) -> list[str]:
        """The answer of each sampled row, as far as it has a column of its own."""
        name = self.reader.answer
        return [text_in(row.values.get(name)) if name else "" for row in self.sample]

    @property
    def closed(self) -> bool:
        """Whether the answers are labels."""
        return self.reader.task == "classify"

    def cells(self, column: str) -> list[str]:
        """The column's texts in the sampled rows."""
        return [text_in(row.values.get(column)).strip() for row in self.sample]


@dataclass(frozen=True, slots=True)
class Loss:
    """What is said of a column: the finding's code and severity, the option, and its rows."""

    code: str
    severity: Severity
    option: str = ""
    rows: Callable[[Any], bool] | None = None
    values: Mapping[str, Any] = field(default_factory=dict)
    with_columns: tuple[str, ...] = ()


Kind = Callable[[Profile, Seen], Loss | None]
SILENT = Loss("", "note")


def unread_columns(
    names: Iterable[str], rows: Sequence[Row], reader: FileReader, source: str
) -> list[Finding]:
    """What is lost with the columns `names`, which nothing is read from, worst first.

    Columns of one kind that are read by one option are one finding. Rows in which the column says
    that they should not be trained on are named.
    """
    names = tuple(names)
    if len(rows) < LEAST_ROWS:
        return []
    read = [name for columns in reader.columns.values() for name in names_in(columns)]
    every = profiles([*names, *read], rows)
    seen = Seen(reader, rows, sampled(rows), every, names)
    found = []
    for name in names:
        column = every[name]
        if name.casefold() in OWN or not column.texts:
            continue
        judged = next((said for kind in KINDS if (said := kind(column, seen))), SILENT)
        if judged is SILENT:
            continue
        bad = judged.rows
        named = [row.id(source) for row in rows if bad(row.values.get(name))] if bad else []
        found.append(
            finding(
                judged.code,
                named,
                severity=judged.severity,
                column=", ".join((name, *judged.with_columns)),
                option=judged.option,
                ignore=" ".join(_option("--ignore ", n) for n in (name, *judged.with_columns)),
                example=_shown(column.texts[0]),
                **judged.values,
            )
        )
    return found


def _shown(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SHOWN else line[: SHOWN - 1] + "…"


def _part(column: Profile, seen: Seen) -> Loss | None:
    """The author's own parts: train, validation, test."""
    parts = {part_of(column.name, value) for value in column.counts}
    if None in parts or len(parts) < 2 or "train" not in parts:
        return None
    return Loss("unread-split", "warning", _option("--split ", column.name))


def _media(column: Profile, seen: Seen) -> Loss | None:
    """Videos, sounds and pictures, by the names of their files."""
    named = column.name.casefold()
    if column.share(DOCUMENT) >= NEARLY and seen.reader.format != "text-label":
        return Loss("unread-media", "warning", rows=_filled)
    if is_of_media(column):
        marked = any(map(MEDIA_MARKS.search, seen.prompts))
        # Beside a transcript they are where it came from; where there are turns they are asked of.
        asked = marked or seen.reader.asked is None
        return Loss("unread-media", "error" if asked else "warning", rows=_filled)
    if is_of_pictures(column) or (named in PICTURE_NAMES and not column.is_closed):
        return Loss("unread-pictures", "warning", _option("--column images=", column.name))
    return None


def is_of_media(column: Profile) -> bool:
    """Whether a column holds videos or sounds."""
    return column.name.casefold() in MEDIA_NAMES or column.share(VIDEO_OR_SOUND) >= NEARLY


def _filled(cell: Any) -> bool:
    return bool(cell)


def _verdict(column: Profile, seen: Seen) -> Loss | None:
    """What annotators said of the row: accepted, rejected, skipped, a draft."""
    name, values = column.name.casefold().strip(), {word(v) for v in column.counts}
    if column.truths:
        return _truth(column, name, seen)
    if not values <= GOOD | BAD | OPEN or not values & (BAD | OPEN):
        return None
    if column.is_numeric:
        return None
    good = sorted(v for v in column.counts if word(v) in GOOD)
    plain = bool(values & PLAIN)
    return _judged(column, lambda cell: word(text_in(cell)) in BAD | OPEN, good, plain)


def _truth(column: Profile, name: str, seen: Seen) -> Loss | None:
    """Columns of true and false: by their names, or because they judge a free answer."""
    judges = LABELS_OF_ANSWERS.fullmatch(name) and not seen.closed
    if column.is_numeric and not (TRUE_IS_BAD.fullmatch(name) or TRUE_IS_GOOD.fullmatch(name)):
        # 0 and 1 under any other name may be a class, or a count.
        judges = judges and name == "label" and seen.reader.format != "text-label"
    unwanted: bool | None = None
    if TRUE_IS_BAD.fullmatch(name):
        unwanted = True
    elif TRUE_IS_GOOD.fullmatch(name) or judges:
        unwanted = False
    if unwanted is None or unwanted not in column.truths.values():
        return None
    bad = {value for value, true in column.truths.items() if true is unwanted}
    good = sorted(value for value, true in column.truths.items() if true is not unwanted)
    # Beside a label these may be what the row is about: a verified purchase, a helpful review.
    plain = not (seen.closed and OF_THE_ROW.fullmatch(name))
    return _judged(column, lambda cell: text_in(cell).strip().casefold() in bad, good, plain)


def _judged(column: Profile, bad: Callable[[Any], bool], good: Sequence[str], plain: bool) -> Loss:
    share = sum(map(bad, column.cells)) / len(column.cells)
    many = plain and share > MANY
    option = " ".join(_option("--keep ", f"{column.name}={value}") for value in good)
    if not good:
        option = "--keep COLUMN=VALUE"
    return Loss("unread-verdict", "error" if many else "warning", option, bad)


def _same(column: Profile, seen: Seen) -> Loss | None:
    """The text or the label once more: in other letters, as a number, in plain words."""
    cells = seen.cells(column.name)
    for others in (seen.answers, seen.prompts):
        pairs = [(a, b) for a, b in zip(cells, others, strict=True) if a and b]
        if not pairs:
            continue
        forth, back = dict(pairs), {b: a for a, b in pairs}
        closed = len(forth) <= max(2, len(pairs) // 2)
        if closed and all(forth[a] == b and back[b] == a for a, b in pairs):
            return SILENT
    rows = list(zip(cells, seen.prompts, seen.answers, strict=True))
    whole = [b in a and c in a for a, b, c in rows if a and b and c]
    if whole and sum(whole) >= NEARLY * len(whole):
        return SILENT  # all in one, as a template writes it
    alike = [_alike(a, b) for a, b, _ in rows if a and b]
    if alike and sum(alike) >= NEARLY * len(alike):
        return SILENT
    return None


def _alike(one: str, other: str) -> bool:
    """Whether two texts are versions of one, or the other holds the one."""
    a, b = comparable(one), comparable(other)
    if a in b:
        return True
    first, second = set(a.split()), set(b.split())
    return len(first & second) >= ALIKE * len(first | second)


def _rating(column: Profile, seen: Seen) -> Loss | None:
    """How good an answer is said to be."""
    if seen.closed or not column.is_numeric or not RATINGS.fullmatch(column.name.casefold()):
        return None
    values = sorted({float(text) for text in column.texts})
    if len(values) < 2:
        return None
    middle = values[len(values) // 2]
    return Loss(
        "unread-rating",
        "warning",
        f"--keep '{column.name}>={middle:g}'",
        values={"least": f"{values[0]:g}", "most": f"{values[-1]:g}"},
    )


def _worse(column: Profile, seen: Seen) -> Loss | None:
    """Answers that are not the one to learn."""
    name = column.name.casefold()
    if WORSE.fullmatch(name) and (column.is_prose or column.different > DIFFERENT_SHARE):
        return SILENT
    if name in {"preference", "winner", "preferred"} and column.is_closed:
        return Loss("unread-preference", "warning")
    return None


def _options(column: Profile, seen: Seen) -> Loss | None:
    """What can be chosen from: one column of all, or one of each."""
    if not _is_of_options(column):
        return None
    every = [name for name in seen.unread if _is_of_options(seen.others[name])]
    if column.name != every[0]:
        return SILENT  # told with the first
    severity: Severity = "error" if seen.reader.asked is not None else "warning"
    option = seen.reader.read_too(*every, before=False)
    return Loss("unread-options", severity, option, with_columns=tuple(every[1:]))


def _is_of_options(column: Profile) -> bool:
    return bool(OPTIONS.fullmatch(column.name)) and not column.is_numeric and len(column.counts) > 1


def _history(column: Profile, seen: Seen) -> Loss | None:
    """Turns before the question, where the format has a place for pairs of them."""
    cells = [cell for cell in column.cells if isinstance(cell, list) and cell]
    pairs = all(isinstance(pair, list) and len(pair) == 2 for cell in cells for pair in cell)
    if not cells or not pairs or seen.reader.format not in WITH_HISTORY:
        return None
    return Loss("unread-text", "error", _option("--column history=", column.name))


def _weight(column: Profile, seen: Seen) -> Loss | None:
    """How much each row is to count."""
    if not WEIGHTS.fullmatch(column.name.casefold()) or not column.is_numeric:
        return None
    if len(column.counts) < 2:
        return None
    return Loss("unread-weight", "warning", _option("--column weight=", column.name))


def _labels(column: Profile, seen: Seen) -> Loss | None:
    """Labels once more, of the same classes, that are others in some rows."""
    answers = {text.strip().casefold() for text in seen.answers}
    if not seen.closed or not column.counts.keys() <= answers or len(column.counts) < 2:
        return None
    cells = seen.cells(column.name)
    other = sum(a.casefold() != b.casefold() for a, b in zip(cells, seen.answers, strict=True) if a)
    if not other:
        return SILENT
    return Loss("unread-label", "warning", values={"share": other / len(column.texts)})


def _reference(column: Profile, seen: Seen) -> Loss | None:
    """Ids of other rows, or of what several rows belong to."""
    if PARENTS.fullmatch(column.name) and not column.is_prose:
        parents = {comparable(text) for text in column.texts}
        keys = {
            comparable(text_in(row.values.get(other)))
            for other, told in seen.others.items()
            if other != column.name and IDENTIFIERS.fullmatch(other) and told.texts
            for row in seen.rows
        }
        if len(parents & keys) > len(parents) / 2:
            return Loss("unread-reference", "warning", rows=_filled)
    if not IDENTIFIERS.fullmatch(column.name) or column.is_prose or column.is_closed:
        return None
    if 0 < column.different <= NEARLY and len(column.counts) > 1:
        return Loss("unread-group", "note", _option("--group ", column.name))
    return None


def _system(column: Profile, seen: Seen) -> Loss | None:
    """What the model is told before it is asked."""
    if column.name.casefold() not in (*SYSTEMS, "persona", "instructions") or not column.is_prose:
        return None
    if seen.reader.asked is not None and seen.reader.format != "text-label":
        return Loss("unread-text", "warning", _option("--column system=", column.name))
    return Loss("unread-text", "warning", seen.reader.read_too(column.name))


def _text(column: Profile, seen: Seen) -> Loss | None:
    """A text that differs by row: what is asked about, or a part of it."""
    if not column.is_prose or column.different < DIFFERENT_SHARE:
        return None
    if REMARKS.fullmatch(column.name.casefold()):
        return Loss("unread-remarks", "note")
    cells = seen.cells(column.name)
    turns = any(isinstance(c, list) and c and all(map(is_turn, c)) for c in column.cells)
    severity: Severity = "warning"
    longer = not seen.closed and column.length > 2 * max(1, _middle(seen.prompts))
    if turns or longer or _is_evidence(cells, seen):
        severity = "error"
    return Loss("unread-text", severity, seen.reader.read_too(column.name))


def _is_evidence(cells: Sequence[str], seen: Seen) -> bool:
    """Whether the answers stand in the unread texts, and not in the prompts."""
    told = [
        (comparable(answer), comparable(cell), comparable(prompt))
        for answer, cell, prompt in zip(seen.answers, cells, seen.prompts, strict=True)
        if len(answer.strip()) >= LEAST_ANSWER and cell
    ]
    if seen.closed or not told:
        return False
    within = sum(answer in cell and answer not in prompt for answer, cell, prompt in told)
    return within >= EVIDENCE_SHARE * len(told)


def _middle(texts: Sequence[str]) -> float:
    return Profile("", tuple(texts)).length


# In this order: what is known for certain comes first.
KINDS: tuple[Kind, ...] = (
    _part,
    _media,
    _verdict,
    _worse,
    _options,
    _history,
    _weight,
    _same,
    _rating,
    _labels,
    _system,
    _reference,
    _text,
)

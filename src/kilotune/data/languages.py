"""The language that a text in Latin letters is in, by its function words."""

import re
import tomllib
from collections import defaultdict
from importlib.resources import files

FUNCTION_WORDS: dict[str, str] = tomllib.loads(
    (files("kilotune.data") / "function_words.toml").read_text(encoding="utf-8")
)
OWNERS = {
    word: [name for name, words in FUNCTION_WORDS.items() if word in words.split()]
    for word in " ".join(FUNCTION_WORDS.values()).split()
}

WORDS = re.compile(r"[^\W\d_]+")
# Code is full of these, and of English words. Prose has fewer.
CODE_SIGNS, CODE_SHARE = re.compile(r"[{}\[\]()=<>;_/\\|#*]"), 0.05
# Fewer words than this tell nothing, and more than this tell no more.
LEAST_WORDS, MOST_WORDS = 8, 100
# In running text a third to a half of the words are such words; some of them are not listed here.
LEAST_SHARE, LEAST_DIFFERENT = 0.15, 4
# The runner-up must be this far behind.
MARGIN = 2.0


def language(text: str) -> str | None:
    """The language of a text in Latin letters; None where that is not plain, and for code.

    A word counts 1, divided by the languages that have it; the best must have twice the score of
    the next, and several different words.
    """
    words = WORDS.findall(text.lower())[:MOST_WORDS]
    if len(words) < LEAST_WORDS or len(CODE_SIGNS.findall(text)) > CODE_SHARE * len(text):
        return None
    scores: dict[str, float] = defaultdict(float)
    different: dict[str, set[str]] = defaultdict(set)
    for word in words:
        names = OWNERS.get(word, ())
        for name in names:
            scores[name] += 1 / len(names)
            different[name].add(word)
    if not scores:
        return None
    best, *others = sorted(scores, key=lambda name: -scores[name])
    score, next_score = scores[best], max((scores[name] for name in others), default=0)
    plain = (
        score >= LEAST_SHARE * len(words)
        and score >= MARGIN * next_score
        and len(different[best]) >= LEAST_DIFFERENT
    )
    return best if plain else None

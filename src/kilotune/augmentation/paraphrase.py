"""Paraphrases and words in context, by a pretrained language model."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from kilotune.augmentation.edits import times
from kilotune.augmentation.model_protocols import Guesser, Writer
from kilotune.augmentation.operation import Bulk, Draw
from kilotune.augmentation.protection import Protection
from kilotune.augmentation.segments import CHINESE, Piece, joined, language_of, pieces
from kilotune.data.example import Example, Message, comparable
from kilotune.errors import KilotuneError

PROMPT = (
    "Rewrite this text in other words. Keep its meaning, its mood, and all names and numbers. "
    "Answer with the rewritten text and nothing else.\n\n{text}"
)
CHINESE_PROMPT = "换一种说法，保持意思、语气、人名和数字不变。只回答改写后的文字。\n\n{text}"
# What models say before or instead of what was asked for.
LEAD = re.compile(
    r"^\s*(?:sure|certainly|of course|here(?:'s| is| are)|rewritten(?: text)?|paraphrase[d]?|"
    r"好的|改写后的?|以下是)[^\n:：]{0,80}[:：!]\s*",
    re.IGNORECASE,
)
DECLINED = re.compile(
    r"^\s*(?:i['’]?m sorry|i cannot|i can['’]?t|as an ai|很抱歉|抱歉)", re.IGNORECASE
)
QUOTES = (('"', '"'), ("“", "”"), ("「", "」"), ("'", "'"))
# How much less likely, in nats, a word may make the whole sentence than the word it replaces.
WORSE = 2.0
# Words of so many letters are mostly grammar.
LEAST_LETTERS = 3


@dataclass(frozen=True, slots=True)
class MaskedWord:
    """A word of a text and what stands on both sides of it."""

    left: str
    word: str
    right: str


def paraphrases(
    writer: Writer,
    protection: Protection,
    refused: Counter[str],
    *,
    prompt: str | None,
    temperature: float,
    seed: int,
) -> Bulk:
    """One paraphrase a draw, asked for by `prompt`, which has `{text}` once.

    An answer that is empty, copied, a refusal, unfinished or without what is protected is refused.
    """
    if prompt is not None and "{text}" not in prompt:
        raise KilotuneError(
            "the prompt has no {text} to put the text in",
            where="augment.prompt",
            fix=f"Write it like {PROMPT!r}",
        )

    def asked(example: Example) -> tuple[Message, ...]:
        text = example.text.removeprefix(protection.beginning)
        usual = CHINESE_PROMPT if language_of(text) == CHINESE else PROMPT
        return (Message("user", (prompt or usual).replace("{text}", text)),)

    def bulk(draws: Sequence[Draw]) -> list[list[Example]]:
        # Chance falls to a batch as a whole, so its order must not depend on the examples'.
        order = sorted(range(len(draws)), key=lambda place: draws[place].example.id)
        said = writer.write(
            [asked(draws[place].example) for place in order], temperature=temperature, seed=seed
        )
        results: list[list[Example]] = [[] for _ in draws]
        for place, answer in zip(order, said, strict=True):
            example = draws[place].example
            text, reason = read(answer, example, protection)
            if reason:
                refused[reason] += 1
            else:
                results[place].append(example.with_text(text))
        return results

    return bulk


def read(answer: str, example: Example, protection: Protection) -> tuple[str, str]:
    """The paraphrase in what a model answered, and why it is refused, or nothing."""
    if not answer.strip():
        return "", "empty or unfinished"
    if DECLINED.match(answer):
        return "", "declined"
    text = LEAD.sub("", answer.strip(), count=1).strip()
    several = "\n" in example.text.strip()
    text = text if several else (text.split("\n", 1)[0]).strip()
    for first, last in QUOTES:
        if len(text) > 1 and text[0] == first and text[-1] == last and text.count(first) <= 2:
            text = text[1:-1].strip()
    begun = example.text.startswith(protection.beginning)
    whole = (protection.beginning if begun else "") + text
    if not text:
        return "", "empty or unfinished"
    if comparable(whole) == comparable(example.text):
        return "", "copied"
    if protection.lost(whole, example.text, example.answer):
        return "", "lost what is protected"
    return whole, ""


def in_context(guesser: Guesser, protection: Protection, alpha: float) -> Bulk:
    """Words replaced by what a language model finds likely in their place, alpha of them.

    Of the likeliest words that make the whole sentence at most WORSE nats less likely, one is
    drawn. Each place is judged with the other words as they were.
    """

    def bulk(draws: Sequence[Draw]) -> list[list[Example]]:
        cut = [pieces(d.example.text, protection.spans(d.example.text, d.example.answer))
               for d in draws]  # fmt: skip
        chosen = [_places(parts, draw, alpha) for parts, draw in zip(cut, draws, strict=True)]
        gaps = [_gap(parts, at) for parts, places in zip(cut, chosen, strict=True) for at in places]
        found = iter(guesser.guesses(gaps) if gaps else [])
        results = []
        for parts, places, draw in zip(cut, chosen, draws, strict=True):
            new = list(parts)
            for at in places:
                others = [w for w, gain in next(found) if _fits(w, parts[at].text, gain)]
                if others:
                    new[at] = Piece(draw.rng.choice(others[:5]), True)
            text = joined(new)
            results.append([] if text == draw.example.text else [draw.example.with_text(text)])
        return results

    return bulk


def _places(parts: Sequence[Piece], draw: Draw, alpha: float) -> list[int]:
    words = [at for at, part in enumerate(parts) if part.word]
    heavy = [
        at for at in words if len(parts[at].text) > LEAST_LETTERS or not parts[at].text.isascii()
    ]
    count = min(len(heavy), times(alpha, len(words)))
    return sorted(draw.rng.sample(heavy, count))


def _gap(parts: Sequence[Piece], at: int) -> MaskedWord:
    return MaskedWord(joined(parts[:at]), parts[at].text, joined(parts[at + 1 :]))


def _fits(word: str, before: str, gain: float) -> bool:
    """Whether a guess is another word of the same kind of writing, and likely enough."""
    same = word[:1].isupper() == before[:1].isupper() and word.isalpha()
    same = same and (len(word) > LEAST_LETTERS or not word.isascii())
    stem = min(len(word), len(before), 4)
    return same and word.lower()[:stem] != before.lower()[:stem] and gain >= -WORSE

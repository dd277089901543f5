"""Easy data augmentation (Wei and Zou 2019): random insertion, deletion and swap of words.

As in the paper, insertion and swap are done n = alpha * words times (at least once), and deletion
removes each word with probability alpha, never all of them. What is protected never moves, and
Chinese is edited by segments.
"""

import random
from collections.abc import Callable

from kilotune.augmentation.operation import Operation
from kilotune.augmentation.protection import Protection
from kilotune.augmentation.segments import Piece, joined, pieces, spaced
from kilotune.data.example import Example

# So many words to insert, given a text's words: synonyms of some, fewer where few have any.
Words = Callable[[list[str], random.Random, int], list[str]]
Edit = Callable[[list[Piece], random.Random, float], list[Piece]]


def insert(protection: Protection, alpha: float, words: Words | None = None) -> Operation:
    """Random insertion: synonyms of random words of the text, at random places.

    Without a dictionary (`words`), or where it has too few, the text's own words come again.
    """

    def edit(parts: list[Piece], rng: random.Random, alpha: float) -> list[Piece]:
        said = [part.text for part in parts if part.word]
        gap = " " if spaced("".join(said)) else ""
        done = list(parts)
        count = times(alpha, len(said))
        new = words(said, rng, count) if words else []
        for word in new + [rng.choice(said).lower() for _ in range(count - len(new))]:
            place = rng.choice([i for i, part in enumerate(done) if part.word])
            done[place:place] = [Piece(word, True), Piece(gap, False)]
        return done

    return _operation(edit, protection, alpha)


def delete(protection: Protection, alpha: float) -> Operation:
    """Random deletion: each word is left out with probability alpha, at least one and not all."""
    return _operation(_delete, protection, alpha)


def swap(protection: Protection, alpha: float) -> Operation:
    """Random swap: two random words change places."""
    return _operation(_swap, protection, alpha)


def times(alpha: float, words: int) -> int:
    """How often an edit is done on a text of so many words."""
    return max(1, int(alpha * words))


def edited(
    example: Example, protection: Protection, change: Callable[[list[Piece]], list[Piece]]
) -> list[Example]:
    """The example with its text changed; nothing where no word may be, or none was."""
    text = example.text
    parts = pieces(text, protection.spans(text, example.answer))
    if not any(part.word for part in parts):
        return []
    changed = joined(change(parts))
    return [] if changed == text else [example.with_text(changed)]


def _operation(edit: Edit, protection: Protection, alpha: float) -> Operation:
    def operation(example: Example, rng: random.Random) -> list[Example]:
        return edited(example, protection, lambda parts: edit(parts, rng, alpha))

    return operation


def _delete(parts: list[Piece], rng: random.Random, alpha: float) -> list[Piece]:
    places = [i for i, part in enumerate(parts) if part.word]
    if len(places) < 2:
        return parts
    gone = {place for place in places if rng.random() < alpha} or {rng.choice(places)}
    if len(gone) == len(places):
        gone.remove(rng.choice(places))
    done: list[Piece] = []
    for place, part in enumerate(parts):
        if place in gone:
            continue
        # The space after a word that is gone goes with it.
        if place - 1 in gone and part.text.startswith(" ") and (not done or _ends_spaced(done)):
            part = Piece(part.text[1:], False)
        done.append(part)
    while len(done) > 1 and not done[-1].text:
        done.pop()
    # What ended in the space before a last word.
    return [*done[:-1], Piece(done[-1].text.rstrip(" "), done[-1].word)] if gone else done


def _ends_spaced(done: list[Piece]) -> bool:
    return next((part.text[-1].isspace() for part in reversed(done) if part.text), True)


def _swap(parts: list[Piece], rng: random.Random, alpha: float) -> list[Piece]:
    places = [i for i, part in enumerate(parts) if part.word]
    if len({parts[place].text for place in places}) < 2:
        return parts
    done = list(parts)
    for _ in range(times(alpha, len(places))):
        one = rng.choice(places)
        other = rng.choice([place for place in places if done[place].text != done[one].text])
        done[one], done[other] = done[other], done[one]
    return done

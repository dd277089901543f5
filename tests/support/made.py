"""Examples made by hand, for tests of what is done with them."""

from kilotune.data.example import Example, Image, Message, Origin


def classified(*pairs: tuple[str, str | None], groups: tuple[str, ...] = ()) -> list[Example]:
    """A text and its label on each line from 2 on, as a CSV has them."""
    return [
        Example(
            f"data:{row}",
            (Message("user", text),),
            Origin("a.csv", row),
            label,
            groups[row - 2] if groups else None,
        )
        for row, (text, label) in enumerate(pairs, 2)
    ]


def answered(*pairs: tuple[str, str]) -> list[Example]:
    """A question and its answer on each line from 1 on, as JSON Lines have them."""
    return [
        conversation(row, ("user", question), ("assistant", answer))
        for row, (question, answer) in enumerate(pairs, 1)
    ]


def conversation(row: int, *turns: tuple[str, str]) -> Example:
    """One conversation of any roles."""
    messages = tuple(Message(role, text) for role, text in turns)
    return Example(f"data:{row}", messages, Origin("a.jsonl", row))


def pictured(row: int, *images: Image, text: str = "What is this?") -> Example:
    """A question about images, and its answer."""
    messages = (Message("user", (*images, text)), Message("assistant", f"number {row}"))
    return Example(f"data:{row}", messages, Origin("a.jsonl", row))


PLACES = ("harbour", "station", "market", "library", "garden", "bridge", "castle", "museum")
THINGS = ("lamp", "kettle", "ladder", "violin", "parcel", "mirror", "blanket", "compass", "bottle")
DEEDS = ("repaired", "carried", "painted", "borrowed", "weighed", "dropped", "polished")


def sentences(count: int) -> list[str]:
    """Different plain sentences, at most 504, of which no two are near duplicates."""
    return [
        f"{DEEDS[i % 7].title()} the {THINGS[i % 9]} {i} at the {PLACES[i % 8]} before noon"
        for i in range(count)
    ]

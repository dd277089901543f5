"""New dialogues out of old ones: longer, shorter, joined, or with a turn in other words.

What the assistant says is never edited. `rewrite_turn`, asked for by name, changes what any role
says and has the answers behind it written anew by the model.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from kilotune.augmentation.model_protocols import Conversation, Writer
from kilotune.augmentation.operation import Bulk, Draw, Operation, each
from kilotune.augmentation.protection import Protection
from kilotune.data.example import Example, Message, comparable
from kilotune.errors import KilotuneError

FOLLOW_UP = (
    "Here is a conversation.\n\n{dialogue}\n\nWrite what the user asks next, one short question "
    "that follows from it. Answer with the question and nothing else."
)
REWRITE = (
    "Say this in other words. Keep its meaning, and all names and numbers. Answer with the "
    "rewritten text and nothing else.\n\n{text}"
)
NAMES = {"user": "User", "assistant": "Assistant"}
# Dialogues of at most so many messages are short enough to be joined.
SHORT = 4


def prefixes(example: Example, rng: random.Random) -> list[Example]:
    """Each shorter dialogue that the dialogue begins with and that ends with an answer."""
    ends = [at for at, message in enumerate(example.messages, 1) if message.role == "assistant"]
    return [replace(example, messages=example.messages[:end]) for end in ends[:-1]]


def systems(messages: Sequence[str]) -> Operation:
    """Another system message out of a list; one is put first where there is none."""
    if not messages:
        raise KilotuneError(
            "no system messages are given", where="augment.systems", fix="List some"
        )

    def operation(example: Example, rng: random.Random) -> list[Example]:
        has = example.messages[0].role == "system"
        now = example.messages[0].text if has else None
        others = [text for text in messages if text != now]
        if not others:
            return []
        rest = example.messages[1:] if has else example.messages
        return [replace(example, messages=(Message("system", rng.choice(others)), *rest))]

    return operation


def merge(train: Sequence[Example]) -> Bulk:
    """Two short dialogues of one group, one after the other, under the first's system message.

    Without groups any two are joined. Which one comes second is drawn by the first's own chance.
    """
    return _joining(train, lambda example: len(example.messages) <= SHORT, whole=True)


def extend(train: Sequence[Example]) -> Bulk:
    """The first exchange of another dialogue of the same group, behind a dialogue of any length.

    What may follow what is the user's rule: the column of groups. Examples without a group are
    left alone.
    """
    return _joining(train, lambda example: example.group is not None, whole=False)


def _joining(train: Sequence[Example], fits: Callable[[Example], bool], *, whole: bool) -> Bulk:
    def joins(example: Example) -> bool:
        return fits(example) and example.label is None and example.answer is not None

    by_group: dict[str | None, list[Example]] = defaultdict(list)
    for example in sorted(train, key=lambda example: example.id):
        if joins(example):
            by_group[example.group].append(example)

    def operation(example: Example, rng: random.Random) -> list[Example]:
        others = [other for other in by_group[example.group] if other.id != example.id]
        if not others or not joins(example):
            return []
        added = _turns(rng.choice(others))
        first = next(at for at, message in enumerate(added, 1) if message.role == "assistant")
        more = added if whole else added[:first]
        return [replace(example, messages=(*example.messages, *more))]

    return each(operation)


@dataclass(frozen=True, slots=True)
class Rewriting:
    """How the model is asked to write: by whom, how freely, and what must stay.

    What it refuses to give, or gives as it was, is counted in `refused`, by reason.
    """

    writer: Writer
    protection: Protection
    refused: Counter[str]
    temperature: float
    seed: int

    def write(self, conversations: Sequence[Conversation]) -> list[str]:
        """The model's answer to each conversation, stripped."""
        said = self.writer.write(conversations, temperature=self.temperature, seed=self.seed)
        return [answer.strip() for answer in said]

    def answered(self, waiting: dict[int, Conversation]) -> dict[int, Conversation]:
        """The conversations with an answer of the model, where it gave a new one."""
        done: dict[int, Conversation] = {}
        said = self.write(list(waiting.values()))
        for (at, messages), answer in zip(waiting.items(), said, strict=True):
            if not answer or _stands(answer, messages):
                self.refused["empty or copied answer"] += 1
            else:
                done[at] = (*messages, Message("assistant", answer))
        return done

    def rewritten(
        self, draws: Sequence[Draw], roles: Sequence[str]
    ) -> dict[int, tuple[int, Conversation]]:
        """For each draw in which a turn of one of `roles` was rewritten, the turn and all turns."""
        places: dict[int, int] = {}
        for at in _order(draws):
            messages = draws[at].example.messages
            turns = [i for i, m in enumerate(messages) if m.role in roles and _plain(m)]
            if turns:
                places[at] = draws[at].rng.choice(turns)
        before = {at: draws[at].example.messages[place] for at, place in places.items()}
        said = self.write(
            [(Message("user", REWRITE.replace("{text}", m.text)),) for m in before.values()]
        )
        changed: dict[int, tuple[int, Conversation]] = {}
        for (at, place), answer in zip(places.items(), said, strict=True):
            text = answer.strip('"“”').strip()
            if reason := self._fault(text, before[at].text):
                self.refused[reason] += 1
                continue
            messages = draws[at].example.messages
            new = before[at].with_text(text)
            changed[at] = place, (*messages[:place], new, *messages[place + 1 :])
        return changed

    def _fault(self, text: str, before: str) -> str:
        if not text or comparable(text) == comparable(before):
            return "empty or copied"
        return "lost what is protected" if self.protection.lost(text, before) else ""


def follow_up(how: Rewriting) -> Bulk:
    """One more question of the user and its answer, both written by the model."""

    def bulk(draws: Sequence[Draw]) -> list[list[Example]]:
        fit = [at for at in _order(draws) if _is_dialogue(draws[at].example)]
        how.refused["no dialogue"] += len(draws) - len(fit)
        questions = how.write(
            [
                (Message("user", FOLLOW_UP.replace("{dialogue}", _script(draws[at].example))),)
                for at in fit
            ]
        )
        longer: dict[int, Conversation] = {}
        for at, question in zip(fit, questions, strict=True):
            messages = draws[at].example.messages
            said = question.split("\n")[0].removeprefix("User:").strip()
            if not said or _stands(said, messages):
                how.refused["empty or copied"] += 1
            else:
                longer[at] = (*messages, Message("user", said))
        return _examples(draws, how.answered(longer))

    return bulk


def rewrite_user(how: Rewriting) -> Bulk:
    """A random turn of the user in other words; every answer stays as it is."""

    def bulk(draws: Sequence[Draw]) -> list[list[Example]]:
        changed = how.rewritten(draws, ("user",))
        return _examples(draws, {at: messages for at, (_, messages) in changed.items()})

    return bulk


def rewrite_turn(how: Rewriting) -> Bulk:
    """A random turn of any role in other words, and the answers behind it written anew.

    Turn by turn: an answer is asked for when everything before it stands.
    """

    def bulk(draws: Sequence[Draw]) -> list[list[Example]]:
        changed = how.rewritten(draws, ("system", *NAMES))
        done = {at: messages[: place + 1] for at, (place, messages) in changed.items()}
        left = {at: messages[place + 1 :] for at, (place, messages) in changed.items()}
        while any(left.values()):
            waiting: dict[int, Conversation] = {}
            for at, rest in left.items():
                asked = next((i for i, m in enumerate(rest) if m.role == "assistant"), len(rest))
                done[at], left[at] = (*done[at], *rest[:asked]), rest[asked + 1 :]
                if asked < len(rest):
                    waiting[at] = done[at]
            written = how.answered(waiting)
            for at in waiting:
                if at in written:
                    done[at] = written[at]
                else:  # without that answer there is no dialogue
                    del done[at], left[at]
        return _examples(draws, done)

    return bulk


def _examples(draws: Sequence[Draw], made: dict[int, Conversation]) -> list[list[Example]]:
    return [
        [replace(draw.example, messages=made[at])] if at in made else []
        for at, draw in enumerate(draws)
    ]


def _order(draws: Sequence[Draw]) -> list[int]:
    """Chance falls to a batch as a whole, so its order is that of ids, not of the file."""
    return sorted(range(len(draws)), key=lambda at: draws[at].example.id)


def _is_dialogue(example: Example) -> bool:
    return example.label is None and example.answer is not None


def _turns(example: Example) -> Conversation:
    return tuple(message for message in example.messages if message.role != "system")


def _script(example: Example) -> str:
    return "\n".join(f"{NAMES[m.role]}: {m.text}" for m in _turns(example) if m.role in NAMES)


def _stands(text: str, messages: Conversation) -> bool:
    return comparable(text) in {comparable(message.text) for message in messages}


def _plain(message: Message) -> bool:
    return bool(message.text.strip()) and not message.images

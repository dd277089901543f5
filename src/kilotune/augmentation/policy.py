"""Which operations are applied to which examples, how often, and what of it is kept."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, zip_longest

from kilotune.augmentation import back_translation, dialogue, edits, image, paraphrase, synonyms
from kilotune.augmentation.dictionaries import own_thesaurus, thesauri
from kilotune.augmentation.filters import Judges, filtered
from kilotune.augmentation.model_protocols import Models, NoModels, Translator
from kilotune.augmentation.operation import Bulk, Draw, each, imported, rng_of, stamped
from kilotune.augmentation.protection import Protection, protection
from kilotune.augmentation.segments import CHINESE, ENGLISH, language_of, segmented_by
from kilotune.augmentation.synonyms import Thesaurus
from kilotune.data.example import Example
from kilotune.errors import KilotuneError
from kilotune.progress import Progress
from kilotune.recipe.schema import AugmentSettings, OperationSettings

# Filters take some of what is made for a rare class; so much more is made than is wanted.
SPARE, MOST_COPIES = 1.5, 20


class Tools:
    """What operations are made with: the settings, and what the training examples share."""

    def __init__(
        self,
        settings: AugmentSettings,
        train: Sequence[Example],
        models: Models | None = None,
        seed: int = 0,
    ) -> None:
        self.settings = settings
        self.train = train
        self.seed = seed
        self.models = models or NoModels()
        self.warnings: list[str] = []
        self.refused: Counter[str] = Counter()  # by the operation at work, by reason
        self.protection: Protection = protection(settings.protect).of(train)

    @cached_property
    def languages(self) -> Counter[str]:
        """How many of the training texts are in each language; `language` overrides it."""
        if self.settings.language != "auto":
            return Counter({self.settings.language: len(self.train)})
        return Counter(filter(None, (language_of(example.text) for example in self.train)))

    @property
    def usual(self) -> str:
        """The commonest language: that of texts too short to tell. English where none tells."""
        return next((name for name, _ in self.languages.most_common(1)), ENGLISH)

    @cached_property
    def own(self) -> Thesaurus | None:
        """The user's own synonyms."""
        return own_thesaurus(self.settings.synonyms)

    @cached_property
    def thesauri(self) -> Mapping[str, Thesaurus]:
        """The dictionaries of the languages at hand. Raises KilotuneError for one that is missing.

        With the user's own file, others are used only where they are there.
        """
        wanted = {*self.languages, self.usual} & {ENGLISH, CHINESE}
        if self.own is None:
            return thesauri(wanted, self.settings.wordnet)
        return {}

    def translators(self) -> list[Translator]:
        """The translators that are named. Raises KilotuneError for one that is not there."""
        named = self.settings.translators
        return [back_translation.translator(spec, self.models, self.seed) for spec in named]

    def rewriting(self) -> dialogue.Rewriting:
        """How the model is asked to write for dialogues."""
        return dialogue.Rewriting(
            self.models.writer(),
            self.protection,
            self.refused,
            self.settings.temperature,
            self.seed,
        )

    def words(self) -> edits.Words:
        """Synonyms for random insertion."""
        return synonyms.words_from(self.thesauri, self.own, self.usual)


Maker = Callable[[Tools, OperationSettings], Bulk]


def _image_maker(name: str) -> Maker:
    """The maker of the change `name` of images."""

    def make(tools: Tools, how: OperationSettings) -> Bulk:
        spoken = sum(map(image.speaks_of_sides, tools.train)) if name == "flip" else 0
        if spoken:
            tools.warnings.append(
                f"flip: {spoken} examples speak of left, right, digits or words, which a mirrored "
                "picture makes wrong"
            )
        bounds = image.Bounds(*how.strength, tools.settings.filters.image_similarity)
        return each(image.image_operation(name, bounds, tools.refused))

    return make


OPERATIONS: dict[str, Maker] = {
    "synonym": lambda tools, how: each(
        synonyms.synonym(tools.protection, how.alpha, tools.thesauri, tools.own, tools.usual)
    ),
    "insert": lambda tools, how: each(edits.insert(tools.protection, how.alpha, tools.words())),
    "delete": lambda tools, how: each(edits.delete(tools.protection, how.alpha)),
    "swap": lambda tools, how: each(edits.swap(tools.protection, how.alpha)),
    "back-translation": lambda tools, how: back_translation.back_translation(
        [back_translation.Kept(pivot) for pivot in tools.translators()],
        tools.protection,
        tools.refused,
    ),
    "paraphrase": lambda tools, how: paraphrase.paraphrases(
        tools.models.writer(),
        tools.protection,
        tools.refused,
        prompt=tools.settings.prompt,
        temperature=tools.settings.temperature,
        seed=tools.seed,
    ),
    "prefixes": lambda tools, how: each(dialogue.prefixes),
    "system": lambda tools, how: each(dialogue.systems(tools.settings.systems)),
    "merge": lambda tools, how: dialogue.merge(tools.train),
    "extend": lambda tools, how: dialogue.extend(tools.train),
    "follow-up": lambda tools, how: dialogue.follow_up(tools.rewriting()),
    "rewrite-user": lambda tools, how: dialogue.rewrite_user(tools.rewriting()),
    "rewrite-turn": lambda tools, how: dialogue.rewrite_turn(tools.rewriting()),
    "context": lambda tools, how: paraphrase.in_context(
        tools.models.guesser(), tools.protection, how.alpha
    ),
}
OPERATIONS.update({name: _image_maker(name) for name in image.CHANGES})
# What models make, at their speed.
WRITTEN = frozenset(
    {"back-translation", "paraphrase", "context", "follow-up", "rewrite-user", "rewrite-turn"}
)


@dataclass(frozen=True, slots=True)
class Count:
    """What became of one operation.

    How often it was `asked`, how many it `made`, what it `refused` itself, by reason (such as a
    translation that came back identical), what filters have `taken`, by reason, and how many were
    `kept`.
    """

    asked: int
    made: int
    kept: int
    refused: Mapping[str, int] = field(default_factory=dict)
    taken: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Augmented:
    """The examples to add to the training part, and the counts by operation.

    With `epochs` each example is of one of them; with 0 all are of every epoch.
    """

    examples: tuple[Example, ...]
    counts: Mapping[str, Count]
    epochs: int = 0

    def lines(self) -> list[str]:
        """The counts in words, a line an operation."""
        lines = []
        for name, count in self.counts.items():
            lost = {**count.refused, **count.taken}
            why = ", ".join(f"{number} {reason}" for reason, number in lost.items())
            said = f"{name}: asked {count.asked} times, made {count.made}, kept {count.kept}"
            lines.append(said + (f" (not: {why})" if why else ""))
        return lines


def augment(
    train: Sequence[Example],
    held_out: Sequence[Example],
    settings: AugmentSettings,
    *,
    seed: int,
    progress: Progress,
    judges: Judges | None = None,
    models: Models | None = None,
) -> Augmented:
    """New examples for `train`, made by the settings' operations and filtered.

    The same for any order of `train`, but for the order of what is returned. Raises KilotuneError
    for an operation that is not known or lacks what it needs.
    """
    tools = Tools(settings, train, models, seed)
    if tools.languages[CHINESE]:
        progress.say(f"Chinese is cut {segmented_by()}")
    wanted = _wanted(train, settings)
    made: dict[str, list[Example]] = defaultdict(list)
    asked: dict[str, tuple[int, Mapping[str, int]]] = {}
    for how in settings.operations:
        name = _unused(how.op, asked)
        bulk = operation(tools, how)
        draws = _draws(train, wanted, how, len(settings.operations), seed, name)
        tools.refused.clear()
        for line in tools.warnings:
            progress.say(f"warning: {line}")
        tools.warnings.clear()
        results = bulk(draws)
        asked[name] = len(draws), dict(+tools.refused)
        counts: Counter[str] = Counter()
        for draw, result in zip(draws, results, strict=True):
            parent = draw.example
            made[name] += stamped(parent, name, result, counts[parent.id] + 1)
            counts[parent.id] += len(result)
    every = list(chain(*made.values()))
    done = filtered(every, train, held_out, settings.filters, judges or Judges())
    kept = _balanced(done.kept, wanted, seed) if wanted is not None else done.kept
    surplus = {example.id for example in done.kept} - {example.id for example in kept}
    taken = {**done.taken, **({"surplus": tuple(surplus)} if surplus else {})}
    return Augmented(tuple(kept), _counts(asked, made, kept, taken))


def versions(
    examples: Sequence[Example], settings: AugmentSettings, count: int, *, seed: int
) -> list[list[Example]]:
    """`count` altered versions of each example, by the settings' operations in turn, unfiltered.

    Fewer where an operation finds nothing to alter. Raises as `augment` does.
    """
    tools = Tools(settings, examples, seed=seed)
    made: list[list[Example]] = [[] for _ in examples]
    for copy in range(count):
        how = settings.operations[copy % len(settings.operations)]
        draws = [Draw(example, rng_of(seed, how.op, example.id, copy)) for example in examples]
        for own, results in zip(made, operation(tools, how)(draws), strict=True):
            own += results[:1]
    return made


def operation(tools: Tools, how: OperationSettings) -> Bulk:
    """The operation that `how` names. Raises KilotuneError for an unknown one."""
    if ":" in how.op:
        return each(imported(how.op))
    if how.op not in OPERATIONS:
        raise KilotuneError(
            f"no operation '{how.op}'",
            fix=f"Choose one of: {', '.join(OPERATIONS)}; or your own as module:function",
        )
    return OPERATIONS[how.op](tools, how)


def _unused(name: str, taken: Mapping[str, object]) -> str:
    """The name, numbered where an operation stands in the list twice."""
    number = sum(1 for other in taken if other.partition("#")[0] == name)
    return f"{name}#{number + 1}" if number else name


def _wanted(train: Sequence[Example], settings: AugmentSettings) -> dict[str, int] | None:
    """How many examples each label lacks to be as many as the commonest; None for all alike."""
    if settings.target == "all":
        return None
    sizes = Counter(example.label for example in train if example.label is not None)
    if not sizes:
        raise KilotuneError(
            "there are no labels to balance",
            where="augment.target",
            fix="Leave it at 'all', or make the task classify",
        )
    return {label: max(sizes.values()) - size for label, size in sizes.items()}


def _draws(
    train: Sequence[Example],
    wanted: Mapping[str, int] | None,
    how: OperationSettings,
    operations: int,
    seed: int,
    name: str,
) -> list[Draw]:
    """Each example as often as it is to be worked on, with chance of its own each time."""
    sizes = Counter(example.label for example in train)

    def copies(example: Example) -> int:
        if wanted is None:
            return how.copies
        lacking = wanted.get(example.label or "", 0)
        each_one = SPARE * lacking / (operations * sizes[example.label])
        return min(MOST_COPIES, -int(-each_one // 1))

    return [
        Draw(example, rng_of(seed, name, example.id, copy))
        for example in train
        for copy in range(copies(example))
    ]


def _balanced(kept: Sequence[Example], wanted: Mapping[str, int], seed: int) -> tuple[Example, ...]:
    """So many of each label as are wanted, from as many parents as there are."""
    turns: dict[str, list[Example]] = defaultdict(list)
    for example in kept:
        turns[example.origin.parent].append(example)
    order = sorted(turns, key=lambda parent: rng_of(seed, "balance", parent).random())
    rounds = zip_longest(*(turns[parent] for parent in order))
    left = dict(wanted)
    chosen = set()
    for example in chain(*rounds):
        if example is not None and left.get(example.label or "", 0) > 0:
            left[example.label or ""] -= 1
            chosen.add(example.id)
    return tuple(example for example in kept if example.id in chosen)


def _counts(
    asked: Mapping[str, tuple[int, Mapping[str, int]]],
    made: Mapping[str, Sequence[Example]],
    kept: Sequence[Example],
    taken: Mapping[str, Sequence[str]],
) -> dict[str, Count]:
    reasons = {id: reason for reason, ids in taken.items() for id in ids}
    counts = Counter(example.origin.operation for example in kept)
    return {
        name: Count(
            times,
            len(made[name]),
            counts[name],
            refused,
            dict(Counter(reasons[e.id] for e in made[name] if e.id in reasons)),
        )
        for name, (times, refused) in asked.items()
    }

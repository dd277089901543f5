"""The simpler systems that a tuned model must beat, each asked what it is asked."""

import random
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from kilotune.data.example import Example, Message, references
from kilotune.errors import KilotuneError
from kilotune.evaluation.baselines import (
    STRENGTHS,
    blank,
    fit_bag_of_words,
    fit_linear,
    fit_states,
    majority,
    nearest,
)
from kilotune.evaluation.learners import Learner, of_nearest, of_states, of_vectors, of_words
from kilotune.generation.answer import Prompting
from kilotune.generation.embedding import Embedder, load_embedder
from kilotune.generation.hidden_states import StatesOf, hidden_states, places
from kilotune.generation.prefix import common_prefix
from kilotune.models.builtin import fetched_encoder
from kilotune.models.streaming import streamed_layers
from kilotune.recipe.schema import Recipe
from kilotune.rendering.wording import Wording
from kilotune.runs.fitted_baselines import PROBE, FittedBaselines
from kilotune.session.model_session import Answers, Session

# Examples in a prompt: one of each label in turn, so many or as many as there are labels, while
# they take no more than these tokens.
SHOWN, SHOWN_TOKENS = 16, 2000

# Those that learn what they answer by.
LEARN = ("tfidf", "encoder", "states")

# From what is known, to what is asked; what is learnt is put with the rest.
System = Callable[[Sequence[Example], Sequence[Example], FittedBaselines], Answers]


@dataclass(frozen=True)
class BaselineSystems:
    """What is asked beside the tuned model of a session; features of examples are computed once."""

    session: Session
    # How many tokens all examples known at first begin with: those of the instruction.
    _skip: list[int] = field(default_factory=list)
    _states: dict[str, dict[StatesOf, NDArray[np.float32]]] = field(default_factory=dict)
    _embedded: dict[str, NDArray[np.float32]] = field(default_factory=dict)

    def answers(
        self, known: Sequence[Example], asked: Sequence[Example], without: Collection[str] = ()
    ) -> tuple[dict[str, Answers], FittedBaselines]:
        """Each system's answers to `asked`, with the seconds that it took, and what it learnt.

        Those named in `without` are left out, and one that cannot be asked, which is said.
        """
        found, fitted = {}, FittedBaselines()
        for name, system in self._systems(known, asked).items():
            if name not in without and (said := self._asked(name, system, known, asked, fitted)):
                found[name] = said
        return found, fitted

    def prompted(self, known: Sequence[Example], asked: Sequence[Example]) -> dict[str, Answers]:
        """What the base model answers to `asked` without learning: alone, and behind examples."""
        if streamed_layers(self.session.tunable.model):  # every token would read them from disk
            return {}
        found = {"base": self.session.base_answer(asked)}
        system = self._systems(known, asked).get("few_shot")
        if system and (said := self._asked("few_shot", system, known, asked, FittedBaselines())):
            found["few_shot"] = said
        return found

    def learners(self, examples: Sequence[Example]) -> dict[str, Learner]:
        """The systems that learn from `examples`, with what is known of those before any answer."""
        return {
            name: self.learner(name, examples)
            for name in self._systems(examples, ())
            if name in LEARN
        }

    def learner(self, name: str, examples: Sequence[Example]) -> Learner:
        """One of LEARN that the recipe names and the task allows."""
        if name == "encoder":
            self._embed(examples)
            return of_vectors(self._embedded, self._seed)
        if name == "states":
            self._look_at(examples)
            return of_states(self._states, self._seed)
        closed = self.session.prepared.task == "classify"
        return of_words(self._seed) if closed else of_nearest()

    def _asked(
        self,
        name: str,
        system: System,
        known: Sequence[Example],
        asked: Sequence[Example],
        fitted: FittedBaselines,
    ) -> Answers | None:
        start = time.perf_counter()
        try:
            said = system(known, asked, fitted)
        except KilotuneError as error:  # a template that takes one turn alone, say
            self.session.progress.say(f"{name}: not asked, {error}")
            return None
        return replace(said, seconds=time.perf_counter() - start)

    def _systems(self, known: Sequence[Example], asked: Sequence[Example]) -> dict[str, System]:
        """Those that the recipe names and the task allows."""
        prepared, wanted = self.session.prepared, self.session.prepared.recipe.judge.baselines
        closed = prepared.task == "classify"
        streamed = bool(streamed_layers(self.session.tunable.model))
        pictured = any(example.images for example in (*known, *asked))
        blind = blank([example.text for example in known])
        found: dict[str, System] = {"majority": _majority, "tfidf": self._tfidf}
        if "encoder" in wanted and closed and not blind and self._encoder_place:
            found["encoder"] = self._encoder
        if "states" in wanted and closed and not streamed:
            found["states"] = self._hidden
        if "few_shot" in wanted and prepared.task != "chat" and not streamed and not pictured:
            found["few_shot"] = self._few_shot
        return found

    @cached_property
    def embedder(self) -> Embedder:
        """The sentence encoder, if there is one. Raises KilotuneError where it cannot be read."""
        return load_embedder(self._encoder_place or "")

    @property
    def _encoder_place(self) -> str | None:
        """That of the encoder which the recipe names, or of one that was fetched."""
        return encoder_place(self.session.prepared.recipe)

    def _tfidf(
        self, known: Sequence[Example], asked: Sequence[Example], fitted: FittedBaselines
    ) -> Answers:
        """A bag of words; of open answers that of the example whose text is most like it."""
        texts, answers = [e.text for e in known], references(known)
        if self.session.prepared.task != "classify":
            fitted.copied = texts, answers
            return Answers(tuple(nearest(texts, answers, [e.text for e in asked])))
        if blank(texts):
            return _majority(known, asked, fitted)
        words = fitted.tfidf = fit_bag_of_words(texts, answers, seed=self._seed)
        return Answers(tuple(words.predict([example.text for example in asked])))

    def _encoder(
        self, known: Sequence[Example], asked: Sequence[Example], fitted: FittedBaselines
    ) -> Answers:
        """A linear classifier of the texts' embeddings."""
        assert self._encoder_place is not None
        self._embed((*known, *asked))
        learnt, others = (
            np.stack([self._embedded[example.id] for example in part]) for part in (known, asked)
        )
        classifier = fit_linear(learnt, references(known), STRENGTHS, seed=self._seed)
        fitted.encoder = self._encoder_place, self.embedder([PROBE])[0].numpy(), classifier
        return Answers(tuple(classifier.predict(others)))

    def _hidden(
        self, known: Sequence[Example], asked: Sequence[Example], fitted: FittedBaselines
    ) -> Answers:
        """A linear classifier of what the base model makes of the prompts inside."""
        self._note_prefix(known)
        self._look_at((*known, *asked))

        def states(examples: Iterable[Example], place: StatesOf) -> NDArray[np.float32]:
            return np.stack([self._states[example.id][place] for example in examples])

        choices = {place: states(known, place) for place in self._states[known[0].id]}
        best, classifier = fit_states(choices, references(known), seed=self._seed)
        fitted.states = *best, self._skip[0], classifier
        return Answers(tuple(classifier.predict(states(asked, best))))

    def _embed(self, examples: Sequence[Example]) -> None:
        """Compute the embeddings of those that were not embedded before."""
        new = [example for example in examples if example.id not in self._embedded]
        vectors = self.embedder([example.text for example in new])
        self._embedded.update(zip((e.id for e in new), vectors.numpy(), strict=True))

    def _note_prefix(self, known: Sequence[Example]) -> None:
        if not self._skip:
            self._skip.append(len(common_prefix(self.session.prompting.token_ids(known))))

    def _look_at(self, examples: Sequence[Example]) -> None:
        """Compute the hidden states of those that were not looked at before."""
        new = [example for example in examples if example.id not in self._states]
        if not new:
            return
        self._note_prefix(examples)
        prompting = self.session.prompting
        prompts = prompting.prompts(new)
        pad_id = prompting.template.tokenizer.pad_token_id
        with self.session.tunable.as_base() as model:
            found = hidden_states(
                model,
                prompts,
                places(model),
                skip=self._skip[0],
                pad_id=pad_id,
                progress=self.session.progress,
            )
        for row, example in enumerate(new):
            self._states[example.id] = {place: states[row] for place, states in found.items()}

    def _few_shot(
        self, known: Sequence[Example], asked: Sequence[Example], fitted: FittedBaselines
    ) -> Answers:
        """The base model with examples before each question, which are read once for all."""
        prompting = self.session.prompting
        worded = [prompting.worded(example) for example in asked]
        shown = to_show(self.session, known)
        session = replace(self.session, prompting=few_shot(prompting))
        with session.tunable.as_base() as model:
            behind = [behind_turns(shown, one) for one in worded]
            said = session.answer(model, behind, "base model, with examples")
        fitted.shown = shown
        turns = sum(message.role == "assistant" for message in shown)
        self.session.progress.say(f"few-shot: {turns} examples in each prompt")
        return said

    @property
    def _seed(self) -> int:
        return self.session.prepared.recipe.seed


def _majority(known: Sequence[Example], asked: Sequence[Example], _: FittedBaselines) -> Answers:
    return Answers(tuple(majority(references(known), len(asked))))


def encoder_place(recipe: Recipe) -> str | None:
    """Where the sentence encoder is that a recipe names, or one that was fetched."""
    return recipe.judge.encoder or fetched_encoder()


def to_show(session: Session, known: Sequence[Example]) -> tuple[Message, ...]:
    """Examples out of `known`, as turns before a question.

    As many as leave the longest question that there may be, and its answer, their room.
    """
    prompting = session.prompting
    room = prompting.generation.max_new_tokens + prompting.max_length
    most = min(SHOWN_TOKENS, (prompting.limits.positions or SHOWN_TOKENS + room) - room)
    shown: list[Message] = []
    tokens = 0
    for example in _in_turn(known, session.prepared.recipe.seed):
        turns = [m for m in prompting.fit(example)[0].messages if m.role != "system"]
        asked, answered = prompting.template.prompt_ids(turns[:-1]), turns[-1].text
        taken = len(asked) + len(prompting.template.encode(answered))
        if tokens + taken <= most:
            tokens += taken
            shown += turns
    return tuple(shown)


def few_shot(prompting: Prompting) -> Prompting:
    """How questions are put that are worded already, and stand behind examples."""
    plain = Wording("", "{text}", prompting.wording.labels)
    return replace(prompting, wording=plain, max_length=prompting.max_length + SHOWN_TOKENS)


def behind_turns(shown: Sequence[Message], asked: Example) -> Example:
    """A worded question with other turns between its system message and itself."""
    system = [message for message in asked.messages if message.role == "system"]
    own = [message for message in asked.messages if message.role != "system"]
    return replace(asked, messages=(*system, *shown, *own))


def _in_turn(known: Sequence[Example], seed: int) -> list[Example]:
    """Some of `known` to show: one of each label in turn, else any, each row read once."""
    read = [example for example in known if not example.origin.parent]
    random.Random(seed).shuffle(read)
    met: Counter[str] = Counter()
    ranked = []
    for example in read:
        ranked.append((met[example.label or ""], example))
        met[example.label or ""] += bool(example.label)
    ranked.sort(key=lambda one: one[0])
    return [example for _, example in ranked[: max(SHOWN, len(met))]]

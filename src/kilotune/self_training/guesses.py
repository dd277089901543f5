"""What a tuned model answers, and how sure it is: of labels by scoring, else by sampling."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from kilotune.augmentation.policy import versions
from kilotune.data.example import Example, Task, comparable, references
from kilotune.data.normalise import without_answer
from kilotune.evaluation.confidence import Guess
from kilotune.evaluation.task_metrics import TASKS, UNREADABLE
from kilotune.generation.kept import KeptStates
from kilotune.recipe.schema import Recipe
from kilotune.session.model_session import Session

NOTHING = Guess(UNREADABLE, (0.0,), 0, False)


@dataclass(frozen=True, slots=True)
class Guesses:
    """A guess for each example; of the truth, where it is known, its place and whether it is said.

    The place is that among the guess's logits; of free answers the first is the guess itself and
    the second any other.
    """

    guesses: tuple[Guess, ...]
    truth: tuple[int, ...]
    right: tuple[bool, ...]


def guess(
    session: Session, examples: Sequence[Example], kept: KeptStates | None = None
) -> tuple[Guess, ...]:
    """What the session's tuned model answers to `examples`, in their order, and how surely.

    Examples that cannot be put to it have the guess NOTHING. With `unlabeled.consistency` so many
    altered versions of each text are asked too, and a guess `agrees` if all of them are answered
    alike. `kept` are states of models with the same frozen layers.
    """
    recipe, prompting = session.prepared.recipe, session.prompting
    asked = [without_answer(example) for example in examples]
    refusals = prompting.refusals(asked, session.prepared.labels)
    refused = {row for finding in refusals for row in finding.rows}
    usable = [example for example in asked if example.id not in refused]
    closed = session.prepared.task == "classify"
    answer = partial(_scored, kept=kept) if closed else _sampled
    said = dict(zip((e.id for e in usable), answer(session, usable), strict=True))
    if recipe.unlabeled.consistency:
        said = _consistent(session, usable, said, answer)
    return tuple(said.get(example.id, NOTHING) for example in examples)


def against_truth(
    task: Task, labels: Sequence[str], examples: Sequence[Example], said: Sequence[Guess]
) -> Guesses:
    """The guesses on examples that have answers, held against these."""
    truths = references(examples)
    right = tuple(TASKS[task].right(g.answer, t) for g, t in zip(said, truths, strict=True))
    if task == "classify":
        places = {label: place for place, label in enumerate(labels)}
        return Guesses(tuple(said), tuple(places[truth] for truth in truths), right)
    return Guesses(tuple(said), tuple(0 if hit else 1 for hit in right), right)


def altered(
    recipe: Recipe, examples: Sequence[Example], count: int, *, seed: int
) -> list[list[Example]]:
    """`count` versions of each by `unlabeled.operations` in turn, fewer where none is found."""
    altering = recipe.augment.model_copy(update={"operations": recipe.unlabeled.operations})
    return versions(examples, altering, count, seed=seed)


def _scored(session: Session, examples: Sequence[Example], kept: KeptStates | None) -> list[Guess]:
    """The likeliest label as the whole answer, by packed multiple-choice scoring."""
    labels, model = session.prepared.labels, session.tunable.model
    found = session.prompting.scores(model, examples, labels, session.progress, "labelling", kept)
    guesses = []
    for scores in found:
        logits = tuple(round(value, 4) for value in scores.log_likelihoods)
        place = int(np.argmax(logits))
        guesses.append(Guess(labels[place], logits, place))
    return guesses


def _sampled(session: Session, examples: Sequence[Example]) -> list[Guess]:
    """The commonest of several sampled answers; its logit is that of the share which agrees.

    The share is kept half an answer off 0 and 1, where it would have none.
    """
    recipe, task = session.prepared.recipe, session.prepared.task
    settings, read = recipe.unlabeled, TASKS[task].read
    sampling = session.prompting.at(settings.temperature)
    # Each as it was said, which is what will be tuned on, and as it is read.
    drawn: list[list[tuple[str, str]]] = [[] for _ in examples]
    for number in range(settings.samples):
        asking = replace(sampling, seed=sampling.seed + 1 + number)
        said = asking.answers(session.tunable.model, examples, session.progress, "sampling")
        session.spent.generated += sum(answer.tokens for answer in said)
        for answers, answer in zip(drawn, said, strict=True):
            # An answer that was cut off, or that cannot be read, is none.
            found = read(answer.text, ()) if answer.stopped else UNREADABLE
            answers.append((answer.text.strip() if found else UNREADABLE, found))
    return [_commonest(answers) for answers in drawn]


def _commonest(answers: Sequence[tuple[str, str]]) -> Guess:
    """The first of the commonest answers, as it was said; the empty ones count, and are none."""
    forms = [comparable(found) for _, found in answers]
    form, count = Counter(forms).most_common(1)[0]
    part = min(max(count / len(answers), 0.5 / len(answers)), 1 - 0.5 / len(answers))
    logit = round(float(np.log(part / (1 - part))), 4)
    return Guess(answers[forms.index(form)][0], (logit, 0.0), 0)


def _consistent(
    session: Session,
    examples: Sequence[Example],
    said: dict[str, Guess],
    answer: Callable[[Session, Sequence[Example]], list[Guess]],
) -> dict[str, Guess]:
    """The guesses, each with whether all altered versions of its text are answered alike.

    A text of which no version could be made agrees with nothing.
    """
    recipe = session.prepared.recipe
    made = altered(recipe, examples, recipe.unlabeled.consistency, seed=recipe.seed)
    every = [
        replace(version, id=f"{example.id}+version{number}")
        for example, own in zip(examples, made, strict=True)
        for number, version in enumerate(own)
    ]
    answered, right = iter(answer(session, every)), TASKS[session.prepared.task].right
    found = {}
    for example, own in zip(examples, made, strict=True):
        mine = said[example.id]
        alike = [right(next(answered).answer, mine.answer) for _ in own]
        found[example.id] = replace(mine, agrees=bool(alike) and all(alike))
    return found

"""Simple systems asked about the examples to learn from, out of fold: what advice rests on."""

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from kilotune.data.example import Example, references
from kilotune.data.folds import Fold, make_folds
from kilotune.errors import KilotuneError
from kilotune.evaluation.baselines import FOLDS, blank, majority
from kilotune.evaluation.evidence import Resampling
from kilotune.evaluation.judgement import example_scores
from kilotune.evaluation.label_errors import (
    ENOUGH,
    Contradicted,
    agreement_beyond_chance,
    contradicted,
    numbers,
)
from kilotune.evaluation.learners import (
    Learner,
    Round,
    ask_round,
    curve_sizes,
    of_nearest,
    of_vectors,
    of_words,
)
from kilotune.evaluation.learning_curve import LearningCurve, learning_curve
from kilotune.evaluation.recommendation import recommend
from kilotune.evaluation.survey import Survey
from kilotune.evaluation.task_metrics import TASKS
from kilotune.generation.embedding import load_embedder
from kilotune.preparation.prepare import Prepared
from kilotune.progress import Progress
from kilotune.runs.outcomes import AdviceDocument
from kilotune.runs.record import RunFolder
from kilotune.session.baseline_systems import LEARN, BaselineSystems, encoder_place
from kilotune.session.model_session import Answers

# Cross-validations whose mean a curve is; more examples are asked at most; others, drawn by the
# recipe's seed, are left out.
ROUNDS, MOST_EXAMPLES = 3, 2000
# What a run that is tuning anyway need not be told.
OF_NO_USE = ("tune", "curve-unsure")
# What needs no labels, or a few.
PROMPTED = ("base", "few_shot")
# The simplest first.
ORDER = ("majority", "tfidf", "encoder", "base", "states", "few_shot")


@dataclass(frozen=True, slots=True)
class _Learnt:
    """What a learner said out of fold, with the probabilities of labels, and its curve."""

    answers: dict[str, str]
    likely: dict[str, NDArray[np.float64]]
    curve: LearningCurve | None


def to_survey(prepared: Prepared) -> list[Example]:
    """The training and validation examples that were read, or as many of them as are asked.

    What models made of the data, or guessed, is not among them, nor is the held-out test.
    """
    read = _read(prepared)
    if len(read) <= MOST_EXAMPLES:
        return read
    kept = sorted(random.Random(prepared.recipe.seed).sample(range(len(read)), MOST_EXAMPLES))
    return [read[place] for place in kept]


def _read(prepared: Prepared) -> list[Example]:
    parts = prepared.parts
    return [e for e in (*parts.train, *parts.validation) if not e.origin.parent]


def without_model(prepared: Prepared, examples: Sequence[Example]) -> dict[str, Learner]:
    """The systems that learn and need no language model: words, and a sentence encoder."""
    recipe = prepared.recipe
    if prepared.task != "classify":
        return {"tfidf": of_nearest()}
    found = {"tfidf": of_words(recipe.seed)}
    texts = [example.text for example in examples]
    place = encoder_place(recipe) if "encoder" in recipe.judge.baselines else None
    if place and not blank(texts):
        vectors = load_embedder(place)(texts).numpy()
        by_id = dict(zip((example.id for example in examples), vectors, strict=True))
        found["encoder"] = of_vectors(by_id, recipe.seed)
    return found


def survey(
    prepared: Prepared,
    examples: Sequence[Example],
    learners: Mapping[str, Learner],
    progress: Progress,
    *,
    rounds: int = ROUNDS,
) -> Survey:
    """What `learners` answer to `examples` out of fold, and their learning curves.

    Groups and nearly repeated texts stay together in folds. Where they leave none, nothing is
    asked but the commonest answer.
    """
    truth = dict(zip((e.id for e in examples), references(examples), strict=True))
    recipe, labels = prepared.recipe, prepared.labels
    commonest = dict.fromkeys(truth, majority(list(truth.values()), 1)[0])
    folds = _folds(examples, recipe.seed, rounds, progress)
    learnt = {}
    with progress.bar("asking out of fold", len(learners) * len(folds)) as bar:
        for name, learner in learners.items() if folds else ():
            asked = []
            for number, round_of in enumerate(folds):
                rng = np.random.default_rng([recipe.seed % 2**32, number])
                closed = labels if prepared.task == "classify" else ()
                asked.append(ask_round(learner, round_of, closed, curve_sizes(folds), rng))
                bar.advance(note=name)
            learnt[name] = _learnt(name, prepared, truth, asked)
    answers = {"majority": commonest, **{name: one.answers for name, one in learnt.items()}}
    return Survey(
        task=prepared.task,
        labels=labels,
        truth=truth,
        answers=_ordered(answers),
        resampling=_resampling(prepared),
        curves={name: one.curve for name, one in learnt.items() if one.curve},
        findings=prepared.findings,
        contradicted=_contradicted(prepared, examples, learnt),
    )


def advise_session(
    systems: BaselineSystems, simpler: Mapping[str, Answers], folder: RunFolder
) -> None:
    """Say what the baselines of a run advise, and keep it in `folder`.

    `simpler` are their answers to validation; without any nothing is advised. Those that learn are
    asked out of fold in one round alone, which is all that a run can wait for.
    """
    session = systems.session
    validation, examples = session.prepared.parts.validation, to_survey(session.prepared)
    learn = [name for name in LEARN if name in simpler]
    if not learn:
        return
    learners = {name: systems.learner(name, examples) for name in learn}
    found = survey(session.prepared, examples, learners, session.progress, rounds=1)
    said = {name: by_id(validation, one.predictions) for name, one in simpler.items()}
    found = with_answers(found, {name: one for name, one in said.items() if name in PROMPTED})
    advice = recommend(found)
    for one in advice:
        if one.code not in OF_NO_USE:
            session.progress.say(f"{one}")
    curves = tuple(found.curves.values())
    folder.write(AdviceDocument(advice=advice, systems=found.systems(), curves=curves))


def with_answers(found: Survey, answers: Mapping[str, Mapping[str, str]]) -> Survey:
    """A survey with what further systems, by their names, answered to examples of it."""
    known = {
        name: {id: one for id, one in said.items() if id in found.truth}
        for name, said in answers.items()
    }
    return replace(found, answers=_ordered({**found.answers, **known}))


def by_id(examples: Iterable[Example], predictions: Iterable[str]) -> dict[str, str]:
    """What was answered to each example."""
    return dict(zip((example.id for example in examples), predictions, strict=True))


def _folds(
    examples: Sequence[Example], seed: int, rounds: int, progress: Progress
) -> list[tuple[Fold, ...]]:
    try:
        return [make_folds(examples, FOLDS, seed + number) for number in range(rounds)]
    except KilotuneError as error:
        progress.say(f"nothing is asked out of fold: {error.what}")
        return []


def _learnt(
    name: str, prepared: Prepared, truth: Mapping[str, str], asked: Sequence[Round]
) -> _Learnt:
    metrics = TASKS[prepared.task]
    # Macro-F1 of few rows of a rare label says nothing of that of many: curves are of accuracy.
    metric = metrics.exact if prepared.task == "classify" else metrics.graded
    true = list(truth.values())

    def scored(answers: Mapping[str, str]) -> list[float]:
        said = [answers[id] for id in truth]
        return example_scores(prepared.task, metric, true, said, prepared.labels)

    sizes = list(asked[0].answers)
    scores = {size: [scored(one.answers[size]) for one in asked] for size in sizes}
    chance = scored(dict.fromkeys(truth, majority(true, 1)[0]))
    curve = None
    if len(sizes) > 1:
        curve = learning_curve(
            name, metric, scores, rows=len(_read(prepared)), chance=sum(chance) / len(chance)
        )
    first = asked[0].answers[sizes[0]]
    return _Learnt({id: first[id] for id in truth}, asked[0].likely, curve)


def _contradicted(
    prepared: Prepared, examples: Sequence[Example], learnt: Mapping[str, _Learnt]
) -> dict[str, Contradicted]:
    """How often the system that agrees most with the labels contradicts them, if it may judge."""
    if prepared.task != "classify" or not learnt:
        return {}
    given = numbers(examples, prepared.labels)
    likely = {
        name: np.array([one.likely[example.id] for example in examples])
        for name, one in learnt.items()
    }
    kappa = {
        name: agreement_beyond_chance(given, much.argmax(axis=1)) for name, much in likely.items()
    }
    best = max(kappa, key=kappa.__getitem__)
    found = contradicted(given, likely[best]) if kappa[best] >= ENOUGH else None
    return {best: found} if found else {}


def _ordered(answers: Mapping[str, Mapping[str, str]]) -> dict[str, Mapping[str, str]]:
    return {name: answers[name] for name in ORDER if name in answers}


def _resampling(prepared: Prepared) -> Resampling:
    recipe = prepared.recipe
    return {"samples": recipe.judge.bootstrap_samples, "seed": recipe.seed}

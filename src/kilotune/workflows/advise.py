"""What to do with a labelled file before tuning on it: asked of simple systems, the test closed."""

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from kilotune.data.example import Example, Task
from kilotune.evaluation.learning_curve import LearningCurve
from kilotune.evaluation.recommendation import Advice, recommend, wanting
from kilotune.evaluation.survey import Survey, SystemSurvey
from kilotune.models.source import locate
from kilotune.planning.at_hand import ModelAtHand, is_here, models_at_hand, suited
from kilotune.preparation.prepare import Prepared, clean, prepare
from kilotune.progress import Progress, Silent
from kilotune.recipe.schema import Recipe
from kilotune.session.baseline_systems import BaselineSystems
from kilotune.session.loading import open_session
from kilotune.session.surveying import by_id, survey, to_survey, with_answers, without_model
from kilotune.workflows.preflight import check_settings

# Examples that the base model is asked, drawn by the recipe's seed.
SAMPLE = 100


@dataclass(frozen=True, slots=True)
class Advised:
    """Everything that `kilotune advise` says, the most important advice first.

    `examples` counts those looked at, by part; of the held-out test none is. `labels` counts those
    of closed tasks, the rarest first. `asked_model` is the language model that was asked, if one
    was; `suited` names those at hand that fit memory and writing, the best first.
    """

    task: Task
    examples: dict[str, int]
    labels: dict[str, int]
    asked_model: str | None
    systems: tuple[SystemSurvey, ...]
    curves: tuple[LearningCurve, ...]
    advice: tuple[Advice, ...]
    models: tuple[ModelAtHand, ...]
    suited: tuple[str, ...]
    seconds: float
    test: str = "closed"

    @property
    def wanting(self) -> bool:
        """Whether something of the data is found wanting."""
        return wanting(self.advice)


def advise(recipe: Recipe, *, model: bool = True, progress: Progress | None = None) -> Advised:
    """Advise on the task of `recipe`: what is enough, what tuning or more labels would bring.

    The recipe's language model is asked where it is on this machine, unless not `model`. Raises
    KilotuneError for data or a model that the run itself could not work with.
    """
    start = time.perf_counter()
    progress = progress or Silent()
    prepared = _closed(clean(prepare(recipe, progress), progress))
    examples = to_survey(prepared)
    asked = model and is_here(prepared)
    progress.stage("Asking simple systems about training and validation; the test stays closed")
    found = _with_model(prepared, examples, progress) if asked else None
    found = found or survey(prepared, examples, without_model(prepared, examples), progress)
    progress.stage("Looking at the models at hand")
    models = models_at_hand(prepared)
    kept = {example.id for example in examples}
    return Advised(
        task=prepared.task,
        examples={
            name: sum(example.id in kept for example in part)
            for name, part in prepared.parts.named().items()
            if name != "test"
        },
        labels=found.counts if prepared.task == "classify" else {},
        asked_model=prepared.recipe.model.name if asked else None,
        systems=found.systems(),
        curves=tuple(found.curves.values()),
        advice=recommend(found),
        models=tuple(models),
        suited=tuple(one.name for one in suited(models)),
        seconds=round(time.perf_counter() - start, 1),
    )


def _closed(prepared: Prepared) -> Prepared:
    """The same without the test: what is not there cannot be looked at."""
    return replace(prepared, parts=replace(prepared.parts, test=()))


def _with_model(prepared: Prepared, examples: Sequence[Example], progress: Progress) -> Survey:
    """The survey with the base model: its hidden states, and its own answers to a sample."""
    source = locate(prepared.recipe.model)
    check_settings(prepared, source)
    source.check_weights()
    systems = BaselineSystems(open_session(prepared, source, progress))
    found = survey(prepared, examples, systems.learners(examples), progress)
    size = min(SAMPLE, len(examples) // 2)
    drawn = set(random.Random(prepared.recipe.seed).sample(range(len(examples)), size))
    sample = [example for place, example in enumerate(examples) if place in drawn]
    others = [example for place, example in enumerate(examples) if place not in drawn]
    said = systems.prompted(others, sample)
    return with_answers(found, {name: by_id(sample, one.predictions) for name, one in said.items()})

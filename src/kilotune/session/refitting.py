"""The final model: tuned anew on all that was labelled, once validation has had its say.

What the validation part was held back for is known by then: behind how many steps to stop, how to
decode, and how good such a model is. Its labels are few enough to be worth learning from, so the
model that is kept learns from them too, in as many steps. Figures on validation and out of fold
stay those of models that had not seen what they answered; the held-out test judges the new one.
"""

from collections.abc import Callable
from dataclasses import replace

from kilotune import distributed
from kilotune.data.split import Split
from kilotune.models.streaming import streamed_layers
from kilotune.models.trainable import plain_name
from kilotune.preparation.prepare import Prepared, clean
from kilotune.progress import Silent
from kilotune.runs import record
from kilotune.runs.record import RunFolder
from kilotune.session.fine_tuning import render, tuning_job
from kilotune.session.loading import begin_session, released
from kilotune.session.model_session import Session
from kilotune.session.workbench import as_tuned
from kilotune.training.tuning import Hooks, tune
from kilotune.training.tuning_result import Tuning


def refits(prepared: Prepared) -> bool:
    """Whether the recipe's final model is another than the one that answered validation.

    A validation part of the user's own may be unlike the rest on purpose, and is not learnt from.
    """
    wanted = prepared.recipe.tune.refit == "auto"
    return wanted and bool(prepared.parts.validation) and not prepared.own_validation


def refittable(session: Session) -> bool:
    """Whether the session's model can be tuned anew; why not is said."""
    if distributed.count() > 1:
        why = "processes that train together tune one model"
    elif streamed_layers(session.tunable.model):
        why = "as much as before would be read from disk again"
    else:
        return True
    session.progress.say(f"The final model has not learnt from validation: {why}")
    return False


def refit(
    session: Session,
    chosen: Tuning,
    folder: RunFolder,
    on_save: Callable[[], None] = lambda: None,
) -> tuple[Session, Tuning]:
    """A session of the model tuned anew, in the steps behind which `chosen` was best.

    The session's own model is used up: its adapters are gone. Checkpoints are kept in `folder`, so
    that a stopped run goes on; `on_save` is called behind each. Raises Interrupted after Ctrl-C.
    """
    digests = {plain_name(name): digest for name, digest in session.tunable.digests.items()}
    prepared = _on_all(session.prepared)
    again = begin_session(released(session), prepared, session.progress, digests)
    # How it decodes may have been searched for.
    prompting = replace(again.prompting, generation=session.prompting.generation)
    again = replace(again, prompting=prompting, spent=session.spent)
    train, _, _ = render(replace(again, progress=Silent()))
    job = tuning_job(again, train, [], folder / record.REFIT)
    # The steps that were best are a number, whatever part of these examples' epochs they are.
    recipe = as_tuned(job.recipe, prepared.parts.train, chosen)
    job = replace(job, recipe=recipe)
    return again, tune(again.tunable, job, Hooks(on_save=on_save, progress=session.progress))


def _on_all(prepared: Prepared) -> Prepared:
    """The data with validation among what is learnt from, cleaned as the rest was."""
    parts = prepared.parts
    made = [example for example in parts.train if example.origin.parent]
    read = [example for example in parts.train if not example.origin.parent]
    labelled = Split((*read, *parts.validation), (), parts.test)
    cleaned = clean(replace(prepared, parts=labelled), Silent()).parts
    return replace(prepared, parts=replace(cleaned, train=(*cleaned.train, *made)))

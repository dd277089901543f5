"""The public functions that begin with a recipe: they also take a file and some settings.

A notebook needs no recipe of its own: `kilotune.run("reviews.csv", settings={"tune.rank": 16})`.
Python code that a recipe's file names is refused unless `trust_code`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kilotune.ablation import ray_cluster
from kilotune.models.quiet import quiet
from kilotune.progress import Progress
from kilotune.recipe.load import recipe_of
from kilotune.recipe.schema import Recipe
from kilotune.workflows import ablate as _ablate
from kilotune.workflows import advise as _advise
from kilotune.workflows import plan as _plan
from kilotune.workflows import render as _render
from kilotune.workflows import run as _run

# A recipe, its file (.yaml), or a labelled file.
Source = Recipe | str | Path
GivenSettings = Mapping[str, Any] | None


@quiet()
def run(
    source: Source,
    out: str | Path | None = None,
    progress: Progress | None = None,
    *,
    preset: str | None = None,
    settings: GivenSettings = None,
    trust_code: bool = False,
) -> _run.Run:
    """Check, tune and judge: the whole job, in a new folder (`out`, else one under `runs/`).

    `source` is a recipe, the file of one (.yaml), or a labelled file; `settings` are those of a
    recipe by their full names, such as `{"tune.rank": 16}`, and win. Raises KilotuneError for
    input that cannot be used; after Ctrl-C `kilotune.resume(folder)` goes on.

        run = kilotune.run("demo/movie_reviews.csv", settings={"tune.rank": 8})
        run.test["accuracy"]                       # such as 0.888 [0.857, 0.913]
        run.predict(["a film to forget"])          # such as [negative (0.95)]
    """
    return _run.run(recipe_of(source, preset, settings, trust_code=trust_code), out, progress)


@quiet()
def plan(
    source: Source,
    progress: Progress | None = None,
    *,
    preset: str | None = None,
    settings: GivenSettings = None,
    trust_code: bool = False,
) -> _plan.Plan:
    """What a run of `source` would take: parameters, bytes and seconds, before anything runs.

    Raises KilotuneError for data or a model that the run could not work with.
    """
    return _plan.plan(recipe_of(source, preset, settings, trust_code=trust_code), progress)


@quiet()
def render(
    source: Source,
    *,
    preset: str | None = None,
    settings: GivenSettings = None,
    trust_code: bool = False,
) -> _render.Preview:
    """What the model would see of `source`, token by token, and what is trained of it.

    Raises KilotuneError for a file or a tokenizer that cannot be used.
    """
    return _render.render(recipe_of(source, preset, settings, trust_code=trust_code))


@quiet()
def advise(
    source: Source,
    *,
    model: bool = True,
    progress: Progress | None = None,
    preset: str | None = None,
    settings: GivenSettings = None,
    trust_code: bool = False,
) -> _advise.Advised:
    """Whether to repair, label more, prompt, tune or take something simpler, with figures.

    The language model is asked where it is on this machine, unless not `model`. Raises
    KilotuneError for data or a model that a run could not work with.
    """
    recipe = recipe_of(source, preset, settings, trust_code=trust_code)
    return _advise.advise(recipe, model=model, progress=progress)


@quiet()
def ablate(
    source: Source,
    out: str | Path | None = None,
    progress: Progress | None = None,
    place: ray_cluster.ClusterAddress | None = None,
    *,
    preset: str | None = None,
    settings: GivenSettings = None,
    trust_code: bool = False,
) -> _ablate.Experiment:
    """Look for a better recipe than that of `source`, one factor at a time; tune and judge it.

    Trials are done here one by one, or at `place`, a Ray cluster, as many at once as it has room
    for; what is found is the same. Raises KilotuneError for input that cannot be used; after
    Ctrl-C `kilotune resume` goes on.
    """
    folder = Path(out) if out is not None else None
    return _ablate.ablate(
        recipe_of(source, preset, settings, trust_code=trust_code), folder, progress, place
    )

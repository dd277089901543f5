"""What a run would take, before anything of it runs: parameters, memory, time.

Sizes are exact. Memory and time are estimates: each term stands in `planning` and in
`training.memory` with its formula, and docs/plan.md says how far off they were.
"""

from dataclasses import dataclass, replace

import torch

from kilotune.models.learning_rate import with_learning_rate
from kilotune.models.pretrained import best_device, compute_dtype
from kilotune.models.size import (
    ModelSize,
    Trained,
    empty_model,
    model_size,
    trained_part,
)
from kilotune.models.source import locate_config
from kilotune.planning.arithmetic import judging_seconds, streamed_reads
from kilotune.planning.job import Job
from kilotune.planning.speed import ACCELERATORS, Speed, measure_speed
from kilotune.planning.ways import Fit, Machine, Way, cache_bytes, fit, way_of
from kilotune.planning.workload import Work, measure_work
from kilotune.preparation.prepare import Prepared, clean, prepare
from kilotune.progress import Progress, Silent
from kilotune.recipe.schema import Recipe
from kilotune.self_training.pool import open_pool
from kilotune.session.out_of_fold import more_folds
from kilotune.session.refitting import refits
from kilotune.training.memory import available_bytes
from kilotune.workflows.preflight import check_settings


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that `kilotune plan` says; times in seconds, sizes in bytes.

    `uncounted` says in words what of the recipe no figure holds.
    """

    model: str
    precision: str
    size: ModelSize
    trained: Trained
    work: Work
    steps: int
    cache_bytes: int
    threads: int
    speed: Speed
    free_bytes: int
    ways: tuple[Way, ...]
    judging_seconds: float
    streamed_reads: int
    accelerators: tuple[Fit, ...]
    uncounted: tuple[str, ...]


def plan(recipe: Recipe, progress: Progress | None = None) -> Plan:
    """Plan `recipe`: reads its data and the model's configuration, and measures this machine.

    Raises KilotuneError for data or a model that the run itself could not work with.
    """
    progress = progress or Silent()
    prepared = clean(prepare(recipe, progress), progress)
    source = locate_config(recipe.model)
    check_settings(prepared, source)
    recipe = with_learning_rate(prepared.recipe, source)
    prepared = replace(prepared, recipe=recipe)
    open_pool(prepared, Silent())
    model = empty_model(source.config)
    size = model_size(model)
    trained = trained_part(model, recipe.tune)
    work = measure_work(prepared, source)
    progress.stage("Measuring this machine")
    dtype = compute_dtype(recipe.model.precision)
    speed = measure_speed(size, dtype, best_device())
    job = Job(
        size, trained, work, recipe.tune, recipe.model.quantization,
        general=recipe.judge.forgetting == "auto",
    )  # fmt: skip
    free = available_bytes()
    here = Machine.here(speed, free, dtype)
    return Plan(
        model=recipe.model.name,
        precision=str(dtype).removeprefix("torch."),
        size=size,
        trained=trained,
        work=work,
        steps=job.steps,
        cache_bytes=cache_bytes(job, dtype.itemsize),
        threads=torch.get_num_threads(),
        speed=speed,
        free_bytes=free,
        ways=tuple(way_of(job, path, here) for path in job.paths()),
        judging_seconds=judging_seconds(job, speed),
        streamed_reads=streamed_reads(job, dtype.itemsize),
        accelerators=tuple(fit(job, card) for card in ACCELERATORS),
        uncounted=tuple(_uncounted(prepared, work)),
    )


def _uncounted(prepared: Prepared, work: Work) -> list[str]:
    """What of a run the plan cannot say, in words."""
    left_out, recipe = [], prepared.recipe
    if folds := len(more_folds(prepared, Silent())):
        left_out.append(
            f"tuning on {folds} more fold{'s' * (folds > 1)} to judge by, each at most as long as "
            "the run's own (judge.out_of_fold)"
        )
    if refits(prepared):
        left_out.append(
            "tuning the final model on validation too, in at most as many steps (tune.refit)"
        )
    if recipe.augment.operations or recipe.unlabeled.file:
        left_out.append("what augmentation and pseudo-labels add to the training part")
    if work.images and not work.image_tokens:
        left_out.append(
            f"the tokens of {work.images:,} images, and so neither their memory nor time: "
            "no image processor there"
        )
    if work.images:
        left_out.append("what the vision tower takes to see images, in time and in memory")
    return left_out

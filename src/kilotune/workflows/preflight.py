"""What can be refused before anything is written: one place for run, resume, ablate and plan."""

from dataclasses import dataclass, replace

from kilotune.errors import KilotuneError, some
from kilotune.generation.embedding import check_embedder
from kilotune.models.gguf import is_gguf
from kilotune.models.learning_rate import with_learning_rate
from kilotune.models.quantisation import check_installed
from kilotune.models.size import check_answers, check_trained
from kilotune.models.source import Source, locate
from kilotune.preparation.prepare import Prepared
from kilotune.progress import Progress
from kilotune.self_training.pool import Pool, open_pool
from kilotune.session.llm_judge import check_judge
from kilotune.training.tuning import check_trackers


@dataclass(frozen=True, slots=True)
class Ready:
    """What a training can begin with: its data, where its model is, and texts without labels."""

    prepared: Prepared
    source: Source
    pool: Pool | None


def preflight(prepared: Prepared, progress: Progress) -> Ready:
    """Find the model, and look at all that a run of `prepared` will need, hours later or at once.

    Raises KilotuneError for what is missing, is damaged, or does not go together.
    """
    recipe = prepared.recipe
    if is_gguf(recipe.model.name):
        progress.say(f"{recipe.model.name}: dequantised to float32, once, into the cache")
    source = locate(recipe.model)
    check_settings(prepared, source)
    check_installed(recipe.model)  # a plan may be of another machine
    source.check_weights()
    prepared = replace(prepared, recipe=with_learning_rate(recipe, source))
    return Ready(prepared, source, open_pool(prepared, progress))


def check_settings(prepared: Prepared, source: Source) -> None:
    """Of `preflight` what needs no weights: the configuration of `source` is enough.

    Raises KilotuneError for settings that do not suit the model, the data or this machine.
    """
    recipe, pictured = prepared.recipe, prepared.pictured
    check_judge(prepared)
    if recipe.judge.encoder and "encoder" in recipe.judge.baselines:
        check_embedder(recipe.judge.encoder)
    check_trackers(recipe.tune.report_to)
    source.check_quantisable(recipe.tune)
    check_answers(source, recipe.decoding)
    check_trained(source, recipe.tune)
    if pictured and not source.sees_images:
        raise KilotuneError(
            f"examples with images ({len(pictured)}: {some(pictured)}), and a model of texts alone",
            where=recipe.model.name,
            fix="Give a vision-language model, such as Qwen2-VL's: model.name=FOLDER",
        )

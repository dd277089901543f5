"""From a recipe or a finished run to a model in memory that can be asked."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from transformers import GenerationConfig

from kilotune import distributed
from kilotune.errors import KilotuneError, some
from kilotune.generation.answer import Prompting, answer_room
from kilotune.generation.decoding import generation_config
from kilotune.models.features import FEATURES_SHARE, open_eyes
from kilotune.models.freeze import Tunable
from kilotune.models.identity import SAID, check_identity, identify
from kilotune.models.integrity import not_finite
from kilotune.models.pretrained import Model, compute_dtype, stop_ids, weight_dtype
from kilotune.models.sharding import of_the_leader
from kilotune.models.source import Source, locate
from kilotune.models.streaming import load_base, streamed_layers
from kilotune.models.tuned_weights import (
    ADAPTER,
    check_tuned,
    load_tuned,
    tuned_folder,
    tuned_generation,
)
from kilotune.models.vision import Vision, load_vision
from kilotune.preparation.prepare import Prepared
from kilotune.progress import Progress
from kilotune.recipe.schema import Recipe
from kilotune.rendering.probe import chat_template
from kilotune.rendering.template import ChatTemplate
from kilotune.rendering.wording import Wording, wording
from kilotune.runs.record import RunFolder
from kilotune.session.model_session import Session
from kilotune.session.templates import limits_of, load_template
from kilotune.training.memory import available_bytes


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model as it came, its chat template, and how it sees, if it does."""

    model: Model
    template: ChatTemplate
    vision: Vision | None


def open_session(prepared: Prepared, source: Source, progress: Progress) -> Session:
    """Load the model of `source` with fresh adapters or unfrozen layers, ready to be asked."""
    return begin_session(load(prepared, source, progress), prepared, progress)


def load(prepared: Prepared, source: Source, progress: Progress) -> Loaded:
    """The model of `source`, of the type and with the layers in memory that the recipe needs."""
    recipe = prepared.recipe
    vision = load_vision(source, needed=bool(prepared.pictured))
    template = load_template(source, vision)
    dtype = weight_dtype(recipe.tune, compute_dtype(recipe.model.precision))
    room = int(of_the_leader(str(available_bytes())))  # all stream, or none does
    model = load_base(source, recipe.tune, dtype, room)
    _check_finite(model, recipe, progress)
    if streamed := streamed_layers(model):
        progress.say(
            f"{len(streamed)} lower layers stay on disk and are read one at a time. Tuning stops "
            "on the validation loss; each generated token reads them all once, so judging is slow"
        )
    return Loaded(model, template, vision)


def _check_finite(model: Model, recipe: Recipe, progress: Progress) -> None:
    """Refuse a base model with weights that are not finite, or say so where that is chosen."""
    if broken := not_finite(model.named_parameters()):
        error = KilotuneError(
            f"weights that are not finite: {some(broken)}",
            where=recipe.model.name,
            fix="Fetch the model again, or tune another",
        )
        if recipe.judge.base_check == "stop":
            raise error
        progress.say(f"warning: {error.what}")


def begin_session(
    loaded: Loaded,
    prepared: Prepared,
    progress: Progress,
    known: Mapping[str, str] | None = None,
) -> Session:
    """A session of a model that is loaded; `known` are the digests of its tensors, if taken."""
    recipe, template = prepared.recipe, loaded.template
    generation = generation_config(
        recipe.decoding,
        answer_tokens=answer_room_of(prepared, template),
        stop_ids=stop_ids(loaded.model, template.stop_id),
        pad_id=template.tokenizer.pad_token_id,
    )
    tunable = Tunable(loaded.model, recipe.tune, recipe.seed, known)
    prompting = open_prompting(
        tunable.model, template, prepared.wording, generation, recipe, loaded.vision
    )
    return Session(prepared, prompting, tunable, progress)


def released(session: Session) -> Loaded:
    """The model of a session as it came, for another: what the session tuned is gone."""
    prompting = session.prompting
    vision = None if prompting.eyes is None else prompting.eyes.vision
    return Loaded(session.tunable.release(), prompting.template, vision)


def open_tuned(
    run: Path, recipe: Recipe, labels: Sequence[str], *, pictured: bool, adapter: Path | None = None
) -> tuple[Model, Prompting]:
    """The tuned model of the finished run in `run`, and how it is asked.

    With another `adapter` of the run, such as a checkpoint's, in place of the one it ended with.

    Raises KilotuneError where the base model or what was tuned is damaged or another than it was.
    """
    source = locate(recipe.model)
    check_run(RunFolder(run), recipe, source)
    model, tokenizer, generation = load_tuned(run, recipe, available_bytes(), adapter)
    vision = load_vision(source, needed=pictured)
    # The tokenizer was saved with the template that it was tuned with.
    template = chat_template(tokenizer, arguments=recipe.model.template_arguments, pictures=vision)
    words = wording(recipe.data.system, recipe.data.question, labels, recipe.data.label_wording)
    return model, open_prompting(model, template, words, generation, recipe, vision)


def open_base(
    folder: RunFolder, recipe: Recipe, labels: Sequence[str], *, pictured: bool
) -> tuple[Model, Prompting]:
    """The base model of the finished run in `folder`, as it came, asked as the run asked it.

    Raises KilotuneError where it is damaged, or another than it was.
    """
    source = locate(recipe.model)
    source.check_weights()
    check_base(folder, recipe, source)
    dtype = weight_dtype(recipe.tune, compute_dtype(recipe.model.precision))
    model = load_base(source, recipe.tune, dtype, available_bytes()).eval()
    words = wording(recipe.data.system, recipe.data.question, labels, recipe.data.label_wording)
    generation = tuned_generation(tuned_folder(folder.path))
    vision = load_vision(source, needed=pictured)
    template = load_template(source, vision)
    return model, open_prompting(model, template, words, generation, recipe, vision)


def check_run(folder: RunFolder, recipe: Recipe, source: Source) -> None:
    """Raise KilotuneError where a run's base model, or what it tuned, is not as it left them."""
    check_tuned(folder.path, folder.read_identity())
    if tuned_folder(folder.path).name == ADAPTER:
        source.check_weights()
        # Tokenizer and template are the tuned folder's own.
        check_base(folder, recipe, source, parts=("weights", "config"))


def check_base(
    folder: RunFolder, recipe: Recipe, source: Source, parts: Collection[str] = tuple(SAID)
) -> None:
    """Raise KilotuneError where the model of `source`, whose weights are whole, is not the run's.

    Of what is recorded of its base model `parts` are compared.
    """
    recorded = {part: digest for part, digest in folder.read_identity().items() if part in parts}
    if folder.writes and recorded:
        check_identity(recorded, identify(source), recipe.model.name, folder.path)


def base_identity(source: Source) -> dict[str, str]:
    """What a run's base model is known by. Of several processes the leader reads its weights."""
    return asdict(identify(source)) if distributed.leads() else {}


def open_prompting(
    model: Model,
    template: ChatTemplate,
    words: Wording,
    generation: GenerationConfig,
    recipe: Recipe,
    vision: Vision | None,
) -> Prompting:
    """How examples are put to `model`, as its length and what it sees allow."""
    eyes = None if vision is None else open_eyes(vision, model, available_bytes() // FEATURES_SHARE)
    length, limits = recipe.data.max_length, limits_of(model.config)
    return Prompting(template, words, generation, length, recipe.seed, limits, eyes)


def answer_room_of(prepared: Prepared, template: ChatTemplate) -> int:
    """Tokens that an answer may take, by those of training and validation, or by the labels."""
    known = (*prepared.parts.train, *prepared.parts.validation)
    return answer_room(template, prepared.wording, prepared.labels, known)

"""Which language models are on this machine, and which of them suits a task: memory, writing.

From configurations and tokenizers alone: no weights are read, no network is asked, and no code that
comes with a model is run.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from huggingface_hub import CachedRepoInfo, scan_cache_dir
from huggingface_hub.errors import CacheNotFound

from kilotune.data.packages import cache_folder
from kilotune.errors import KilotuneError
from kilotune.models.builtin import BUILTIN
from kilotune.models.gguf import is_gguf
from kilotune.models.hub import missing_files
from kilotune.models.integrity import first_line
from kilotune.models.pretrained import compute_dtype
from kilotune.models.size import ModelSize, empty_model, model_size, trained_part
from kilotune.models.source import Source, source_at
from kilotune.planning.job import Job
from kilotune.planning.speed import Speed
from kilotune.planning.ways import Machine, memory_of, way_of
from kilotune.planning.workload import measure_work
from kilotune.preparation.prepare import Prepared
from kilotune.recipe.schema import ModelSettings
from kilotune.training.memory import available_bytes

# Of the texts so many are cut into tokens, and of each so many characters.
TEXTS, CHARACTERS = 200, 2000
# Tokens that are no whole character, as a share: above it a model spells the writing byte by byte.
PIECES = 0.1
# A tokenizer of that writing takes few tokens more than the best there is.
LONGER = 1.5
# No time is planned, so the speed is of no matter.
ANY_SPEED = Speed(1.0, 1.0)
# What stands in the name of a class of models that write.
WRITES = ("CausalLM", "LMHead", "ConditionalGeneration")


@dataclass(frozen=True, slots=True)
class ModelAtHand:
    """A model on this machine, for a task.

    `memory` is the peak of training in bytes, on the way that takes least, and `fits` whether there
    is room for it. Of 100 characters of the task's texts its tokenizer makes `tokens`, of which
    `pieces` is the share that are no whole character. `why` says what cannot be told.
    """

    name: str
    parameters: int | None = None
    memory: int | None = None
    fits: bool = False
    tokens: float | None = None
    pieces: float | None = None
    why: str = ""


def models_at_hand(prepared: Prepared) -> list[ModelAtHand]:
    """Built-in models that were fetched, those in the hub's cache, and the recipe's if it is here.

    Those that suit best come first: with room to be trained, then with the fewest tokens.
    """
    parts = prepared.parts
    texts = [example.text[:CHARACTERS] for example in (*parts.train, *parts.validation)[:TEXTS]]
    looked_at = (_look_at(name, place, prepared, texts) for name, place in _places(prepared))
    found = [model for model in looked_at if model]
    return sorted(found, key=lambda one: (not one.fits, one.tokens or math.inf, one.name))


def suited(models: Sequence[ModelAtHand]) -> list[ModelAtHand]:
    """Those that fit into memory and whose tokenizer knows the writing."""
    least = min((one.tokens for one in models if one.tokens), default=0.0)
    return [
        one
        for one in models
        if one.fits and one.tokens and one.tokens <= LONGER * least and (one.pieces or 0) <= PIECES
    ]


def is_here(prepared: Prepared) -> bool:
    """Whether the recipe's model is on this machine, whole."""
    name = prepared.recipe.model.name
    return is_gguf(name) or any(name == known for known, _ in _places(prepared))


def _places(prepared: Prepared) -> Iterator[tuple[str, Path]]:
    """The name and the folder of each model with a configuration and all its weights."""
    places = {name: cache_folder() / "models" / name for name in BUILTIN}
    for repo in _cached():
        latest = max(repo.revisions, key=lambda revision: revision.last_modified)
        places[repo.repo_id] = latest.snapshot_path
    own = prepared.recipe.model.name
    places.setdefault(own, Path(own).expanduser())
    for name, place in places.items():
        if place.is_dir() and _whole(place):
            yield name, place


def _whole(place: Path) -> bool:
    try:
        return not missing_files(str(place))
    except KilotuneError:  # an index that cannot be read
        return False


def _cached() -> list[CachedRepoInfo]:
    try:
        repos = scan_cache_dir().repos
    except CacheNotFound:
        return []
    models = [repo for repo in repos if repo.repo_type == "model" and repo.revisions]
    return sorted(models, key=lambda repo: repo.repo_id)


def _look_at(
    name: str, place: Path, prepared: Prepared, texts: Sequence[str]
) -> ModelAtHand | None:
    """The model at `place`; None for one that does not write."""
    recipe = prepared.recipe
    settings = ModelSettings(name=str(place), precision=recipe.model.precision)
    if name == recipe.model.name:
        settings = recipe.model.model_copy(update={"trust_remote_code": False})
    source = source_at(place, settings)
    try:
        written = source.config.architectures or ()
        if not any(kind in one for one in written for kind in WRITES):
            return None
        size = model_size(empty_model(source.config))
        found = ModelAtHand(name, size.parameters)
        tokens, pieces = _writing(source, texts)
        found = replace(found, tokens=tokens, pieces=pieces)
        memory, fits = _memory(size, source, prepared)
        return replace(found, memory=memory, fits=fits)
    except (KilotuneError, OSError, ValueError) as error:
        return ModelAtHand(name, why=first_line(error))


def _memory(size: ModelSize, source: Source, prepared: Prepared) -> tuple[int, bool]:
    """The least that training takes, and whether there is room for it."""
    tune, settings = prepared.recipe.tune, source.settings
    trained = trained_part(empty_model(source.config), tune)
    asked = replace(prepared, recipe=prepared.recipe.model_copy(update={"model": settings}))
    job = Job(size, trained, measure_work(asked, source), tune, settings.quantization)
    dtype = compute_dtype(settings.precision)
    here = Machine.here(ANY_SPEED, available_bytes(), dtype)
    ways = [way_of(job, path, here) for path in job.paths()]
    least = min(memory_of(job, path, here, 1).total for path in job.paths())
    return least, any(way.fits for way in ways)


def _writing(source: Source, texts: Sequence[str]) -> tuple[float, float]:
    """The tokens of 100 characters, and the share of them that are no whole character."""
    tokenizer = source.tokenizer()
    rows = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    counts = Counter(token for row in rows for token in row)
    total = counts.total()
    broken = sum(
        count
        for token, count in counts.items()
        if token == tokenizer.unk_token_id or "\ufffd" in tokenizer.decode([token])
    )
    return 100 * total / max(1, sum(map(len, texts))), broken / max(1, total)

"""The recipe: every setting of a run, validated, frozen, free of torch."""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)

# Chat templates by name; anything else is a file.
TEMPLATES = ("auto", "chatml", "plain")
# Models by name, whatever folders there are.
BUILT_IN = ("smollm2",)
BUILT_IN_ENCODERS = ("minilm",)

Metric = Literal[
    "auto", "accuracy", "macro_f1", "exact_match", "token_f1", "field_f1", "loss", "none"
]


def _layers(value: object) -> object:
    if isinstance(value, str) and value != "all" and not re.fullmatch(r"top:[1-9]\d{0,4}", value):
        raise ValueError("must be 'all', 'top:K' (as in top:6) or a list of layer numbers")
    return value


# Of a vision-language model: its decoder, what hands images on to it, and what looks at them.
Part = Literal["language", "merger", "vision"]
Parts = Annotated[
    tuple[Part, ...],
    Field(min_length=1, description="what is tuned of a model that sees"),
]

# Shell patterns over the names of the model's parameters.
Patterns = tuple[Annotated[str, Field(min_length=1)], ...]

Layers = Annotated[
    str | tuple[Annotated[int, Field(ge=0, le=99_999)], ...], BeforeValidator(_layers)
]

# Numbers are bounded by what a machine can do, so that a slip of the hand is said and not tried.
# All have an upper bound, which refuses infinity and NaN too. numpy takes no larger seed.
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
Seeds = Annotated[tuple[Seed, ...], Field(min_length=1, max_length=100)]


# What a setting affects, which decides who has to do what anew for another value of it.
Effect = Literal[
    "place",  # where a file or a model lies, of which a digest says what it is
    "resource",  # what else is read while texts are made; a run may find it in another place
    "run",  # how rows are read and parts made, and what is decided once for a whole run
    "answers",  # the texts, their tokens, and how answers come of them
    "method",  # what is trained, and how
    "steps",  # the optimiser's steps on it: their number, size and order
    "guesses",  # what the models of self-training say
    "choice",  # what self-training takes of that
    "rounding",  # figures, by no more than the order in which numbers are added up
    "speed",
    "figures",  # how figures are made, who is told of them, how an experiment is led
]


@dataclass(frozen=True, slots=True)
class Affects:
    """Marks a setting that has another effect than most of its part."""

    effect: Effect


PLACE, RESOURCE, ANSWERS = Affects("place"), Affects("resource"), Affects("answers")
STEPS, CHOICE = Affects("steps"), Affects("choice")
SPEED, FIGURES = Affects("speed"), Affects("figures")


class Settings(BaseModel):
    """Base of every part: frozen, and an unknown key is an error rather than a silent default.

    Each part says what its settings affect, where they are not marked otherwise: that of its
    effects for which most has to be done anew, so that a new setting is on the safe side.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())
    affects: ClassVar[Effect]


def _no_conversation(arguments: dict[str, bool | int | str]) -> dict[str, bool | int | str]:
    """Raise ValueError for what the template is given of each conversation."""
    taken = sorted(arguments.keys() & {"messages", "add_generation_prompt"})
    if taken:
        raise ValueError(f"{' and '.join(taken)} cannot be set: each conversation gives its own")
    return arguments


TemplateArguments = Annotated[dict[str, bool | int | str], AfterValidator(_no_conversation)]


@dataclass(frozen=True, slots=True)
class Location:
    """Marks a setting that says where something lies: every path in a recipe is one.

    A text is a path unless it is one of `names`, or, with `or_name`, may be read as a name too: see
    `is_path`. The groups of `within` are what may be paths in a longer text.
    """

    names: tuple[str, ...] = ()
    or_name: bool = False
    within: re.Pattern[str] = re.compile("(.+)", re.DOTALL)

    def is_path(self, text: str, folder: Path) -> bool:
        """Whether `text`, written in a file in `folder`, is a path.

        What may be a name is one if it begins as a path does (`./`, `../`, `~`, `/`), ends as a
        file of a model does (.gguf, .json), or is a folder, as seen from `folder`.
        """
        if not text or text in self.names:
            return False
        written = PATH.match(text) or Path(text).is_absolute()
        return bool(not self.or_name or written or os.path.isdir(folder / text))


PATH = re.compile(r"~|\.\.?(/|$)|.*\.(gguf|json)$", re.IGNORECASE | re.DOTALL)


def _named(value: object) -> object:
    if value == "":
        raise ValueError("must name a file")
    return value


File = Annotated[Path, BeforeValidator(_named), Location()]
# A model: a built-in name, a hub id, a folder, or a file.
ModelPlace = Annotated[str, Location(BUILT_IN, or_name=True)]
# A sentence encoder, likewise.
EncoderPlace = Annotated[str, Location((*BUILT_IN, *BUILT_IN_ENCODERS), or_name=True)]
# Of models and data that translate, as in hf:THERE,BACK and apertium:eng-spa@FOLDER.
TranslatorPlace = Annotated[
    str,
    Location(
        or_name=True, within=re.compile(r"hf:([^,@]+)(?:,([^,@]+))?(?:@.*)?|apertium:[^@]*@(.+)")
    ),
]


class ModelSettings(Settings):
    """The pretrained model."""

    affects = "answers"
    name: Annotated[ModelPlace, PLACE] = Field(
        "smollm2", description="a built-in name, a folder, a GGUF file, or a hub id"
    )
    chat_template: Annotated[str, Location(TEMPLATES), RESOURCE] = Field(
        "auto", description="auto, chatml, plain, or a Jinja file"
    )
    template_arguments: TemplateArguments = Field(
        default_factory=dict, description="what the chat template takes, as enable_thinking"
    )
    precision: Literal["auto", "bfloat16", "float32"] = "auto"
    quantization: Literal["none", "nf4", "int8"] = Field(
        "none", description="frozen weights in 4 or 8 bits, by bitsandbytes"
    )
    trust_remote_code: bool = False
    min_pixels: int | None = Field(
        None,
        ge=1,
        le=10**9,
        description="smaller images are scaled up to so many pixels (Qwen2-VL kinds)",
    )
    max_pixels: int | None = Field(
        None,
        ge=1,
        le=10**9,
        description="larger images are scaled down to so many pixels (Qwen2-VL kinds)",
    )


def _warm(value: float) -> float:
    """Logits divided by less are beyond what their numbers can hold."""
    if 0 < value < 0.001:
        raise ValueError("must be 0 or at least 0.001")
    return value


Temperature = Annotated[float, AfterValidator(_warm)]


def _texts(value: object) -> object:
    """A mapping with numbers as texts: YAML reads a label 1 as a number."""
    if not isinstance(value, dict):
        return value
    return {_text(key): _text(item) for key, item in value.items()}


def _text(value: object) -> object:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return str(value) if number else value


LabelWording = Annotated[
    Literal["as_is", "lower", "words", "letters"] | dict[str, str], BeforeValidator(_texts)
]


# A column of the file, or several whose texts are joined in this order.
ColumnName = Annotated[str, Field(min_length=1)]
ColumnNames = ColumnName | Annotated[tuple[ColumnName, ...], Field(min_length=1)]


class DataSettings(Settings):
    """Where the examples are and how they are split."""

    affects = "run"
    train: Annotated[File, PLACE]
    validation: Annotated[File | None, PLACE] = None
    test: Annotated[File | None, PLACE] = None
    format: str = Field("auto", description="the schema of the rows, or auto")
    columns: dict[str, ColumnNames] = Field(
        default_factory=dict,
        description="the format's fields, and the file's columns for them; several are joined",
    )
    text: ColumnNames | None = Field(
        None, description="column with the text, or several to be joined; found when absent"
    )
    label: str | None = Field(None, description="column with the label; found by name when absent")
    group: str | None = Field(None, description="column whose values must not be split apart")
    split: str | None = Field(
        None, description="column that says of each row: train, validation or test"
    )
    keep: tuple[str, ...] = Field(
        (), description="which rows are read: answer=accept, rating>=4, status!=draft"
    )
    ignore: tuple[str, ...] = Field((), description="columns that are meant not to be read")
    images: File | None = Field(
        None, description="the folder that images' paths begin in; the data file's when absent"
    )
    task: Literal["auto", "classify", "generate", "extract", "chat"] = "auto"
    train_on: Annotated[Literal["auto", "last", "all_assistant", "completion"], ANSWERS] = Field(
        "auto", description="which tokens are trained; auto: every answer of chats, else the last"
    )
    validation_fraction: float = Field(0.2, ge=0, lt=1, description="0: none, all is trained on")
    test_fraction: float = Field(0.2, gt=0, lt=1)
    system: Annotated[str | None, ANSWERS] = Field(
        None, description="system message; {labels} lists the labels"
    )
    question: Annotated[str | None, ANSWERS] = Field(
        None, description="user message; {text} stands for the text"
    )
    label_wording: Annotated[LabelWording, ANSWERS] = Field(
        "as_is", description="what closed labels are called to the model, or a mapping of them"
    )
    clean: Annotated[tuple[Literal["duplicates", "conflicts", "near_duplicates"], ...], ANSWERS] = (
        Field((), description="what is left out of the training part")
    )
    max_length: Annotated[int, ANSWERS] = Field(
        1024, ge=1, le=10**7, description="tokens; longer prompts are cut"
    )


class StoppingSettings(Settings):
    """When to stop before the last epoch. `patience` counts evaluations."""

    affects = "run"
    metric: Metric = Field(
        "auto",
        description="auto: macro_f1, token_f1 or field_f1, by task; none: every epoch is trained "
        "and the last weights are kept",
    )
    every: Annotated[int, Field(ge=1, le=10**9)] | Literal["epoch"] = Field(
        "epoch", description="steps from one evaluation to the next; the last step has one too"
    )
    patience: int = Field(1, ge=1, le=10**6)
    minimum_gain: Annotated[float, Field(ge=0, le=10**6)] | Literal["auto"] = Field(
        "auto", description="auto: what is not surely worse, by its own noise, gains"
    )


class TuneSettings(Settings):
    """What every way of tuning shares."""

    affects = "method"
    learning_rate: Annotated[Annotated[float, Field(gt=0, le=10**6)] | Literal["auto"], STEPS] = (
        Field(description="auto: by the way of tuning, the task, and the model's kind and width")
    )
    epochs: Annotated[Annotated[float, Field(gt=0, le=10_000)] | Literal["auto"], STEPS] = Field(
        3, description="auto: as many as make about 100 steps, from 3 to 20"
    )
    batch_size: Annotated[int, STEPS] = Field(
        8, ge=1, le=2**16, description="examples an optimiser step sees"
    )
    micro_batch_size: Annotated[
        Annotated[int, Field(ge=1, le=2**16)] | Literal["auto"], Affects("rounding")
    ] = "auto"
    schedule: Annotated[Literal["constant_with_warmup", "cosine", "linear"], STEPS] = "cosine"
    warmup_ratio: Annotated[float, STEPS] = Field(0.05, ge=0, lt=1)
    weight_decay: Annotated[float, STEPS] = Field(0.01, ge=0, le=1000)
    max_grad_norm: Annotated[float, STEPS] = Field(1.0, gt=0, le=10**9)
    stopping: StoppingSettings = StoppingSettings()
    refit: Annotated[Literal["auto", "never"], Affects("run")] = Field(
        "never",
        description="auto: tune the final model on validation too, in the steps that were best",
    )
    report_to: Annotated[tuple[str, ...], FIGURES] = Field(
        (), description="trackers, by transformers' names"
    )
    cache: Annotated[Literal["auto", "always", "never"], SPEED] = Field(
        "auto", description="keep the hidden states that enter the lowest trained layer"
    )
    cache_limit_gb: Annotated[float, SPEED] = Field(
        16, gt=0, le=10**6, description="for the states of all runs together"
    )
    streaming: Annotated[Literal["auto", "always", "never"], SPEED] = Field(
        "auto", description="leave the layers below on disk; auto: when memory is too small"
    )
    trainable: Patterns = Field((), description="parameters trained besides, by name patterns")
    frozen: Patterns = Field((), description="parameters not trained after all, by name patterns")

    @property
    def passes(self) -> float:
        """The number of epochs. Raises ValueError where it is still left to the data."""
        if self.epochs == "auto":
            raise ValueError("tune.epochs is not settled yet: prepare does that")
        return self.epochs

    @property
    def rate(self) -> float:
        """The learning rate. Raises ValueError where it is still left to the model."""
        if self.learning_rate == "auto":
            raise ValueError("tune.learning_rate is not settled yet: that takes the model's width")
        return self.learning_rate

    @property
    def adapters_alone(self) -> bool:
        """Whether every trained tensor is an adapter's, beside weights that stay as they are."""
        return False

    @model_validator(mode="after")
    def _whole_micro_batches(self) -> Self:
        micro = self.micro_batch_size
        if micro != "auto" and self.batch_size % micro:
            raise ValueError(
                f"micro_batch_size {micro} does not divide batch_size {self.batch_size}"
            )
        return self


class LoraSettings(TuneSettings):
    """Low-rank adapters (Hu et al. 2021, section 4); everything else stays frozen.

    `dora` also trains the length of each weight's rows (Liu et al. 2024, section 4).
    """

    method: Literal["lora", "dora"] = "lora"
    rank: int = Field(8, ge=1, le=2**14)
    lora_alpha: float = Field(16, gt=0, le=10**6)
    lora_dropout: float = Field(0.0, ge=0, lt=1)
    target_modules: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    layers: Layers = "all"
    parts: Parts = ("language",)

    @property
    def adapters_alone(self) -> bool:
        """Unless the recipe names weights to be trained too."""
        return not self.trainable


class FullSettings(TuneSettings):
    """Every weight of the model trained, or of a vision-language model those of some parts."""

    method: Literal["full"]
    parts: Parts = ("language",)


class TopLayersSettings(TuneSettings):
    """The top decoder layers trained in full, all below them frozen."""

    method: Literal["top_layers"]
    layers: Layers = "top:4"


class BitFitSettings(TuneSettings):
    """The biases alone (Ben Zaken et al. 2021): of all layers and outside them, or of some."""

    method: Literal["bitfit"]
    layers: Layers = "all"


Method = LoraSettings | TopLayersSettings | FullSettings | BitFitSettings


class DecodingSettings(Settings):
    """How answers are generated; exported with the adapter."""

    affects = "answers"
    temperature: Temperature = Field(0.0, ge=0, le=100, description="0 is greedy")
    top_k: int = Field(0, ge=0, le=10**7)
    top_p: float = Field(1.0, gt=0, le=1)
    repetition_penalty: float = Field(
        1.0, gt=0, le=100, description="1 is none; of the prompt's words too"
    )
    max_new_tokens: Annotated[int, Field(ge=1, le=10**6)] | Literal["auto"] = Field(
        "auto", description="auto: by the lengths of the answers, with a margin"
    )
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        (), description="texts that end an answer, besides the template's own end"
    )
    search: Annotated[bool, Affects("run")] = Field(
        False, description="choose temperature and the like on validation"
    )


class JudgeSettings(Settings):
    """What is measured besides the task's own figures."""

    affects = "figures"
    before_after: int = Field(10, ge=0, le=10**4, description="examples shown before and after")
    train_sample: int = Field(
        100, ge=1, le=10**6, description="training examples judged for the verdict"
    )
    bootstrap_samples: int = Field(2000, ge=1, le=10**5)
    forgetting: Literal["auto", "never"] = Field(
        "auto", description="ask both models general questions; auto: unless layers are streamed"
    )
    base_check: Literal["stop", "say"] = Field(
        "stop", description="what to do about a pretrained model that does not generate"
    )
    baselines: tuple[Literal["encoder", "states", "few_shot"], ...] = Field(
        ("encoder", "states", "few_shot"),
        description="asked besides the commonest answer, a bag of words and the base model",
    )
    out_of_fold: Literal["auto", "never"] = Field(
        "auto", description="tune on folds too, where validation is under about 100 examples"
    )
    encoder: EncoderPlace | None = Field(
        None, description="a sentence encoder for them; None: minilm, where it was fetched"
    )
    metric: str | None = Field(
        None, pattern=r"^[\w.]+:\w+$", description="your own, as my_module:my_function"
    )
    model: ModelPlace | None = Field(
        None, description="a chat model that compares free answers, or my_module:my_function"
    )
    prompt: str | None = Field(None, description="what that model is asked; None: kilotune's own")
    pairs: int = Field(100, ge=1, le=10**6, description="test examples that it compares answers to")

    @model_validator(mode="after")
    def _whole_prompt(self) -> Self:
        wanted = ("{question}", "{first}", "{second}")
        lacking = [field for field in wanted if self.prompt and field not in self.prompt]
        if lacking:
            raise ValueError(f"prompt lacks {', '.join(lacking)}")
        return self


Share = Annotated[float, Field(gt=0, le=1)]


class OperationSettings(Settings):
    """One operation of augmentation: a name, or `module:function` of the user's own."""

    op: str
    copies: int = Field(1, ge=1, le=1000, description="how often it is applied to each example")
    alpha: float = Field(0.1, gt=0, lt=1, description="share of the words that are changed")
    strength: tuple[Share, Share] = Field(
        (0.3, 1.0), description="of images, as shares of the strongest change"
    )

    @model_validator(mode="after")
    def _rising(self) -> Self:
        if self.strength[0] > self.strength[1]:
            raise ValueError("strength goes from the weakest to the strongest")
        return self


def _operation(value: object) -> object:
    return {"op": value} if isinstance(value, str) else value


class FilterSettings(Settings):
    """What is not taken of what operations make."""

    affects = "answers"
    near_parent: bool = Field(True, description="keep what nearly repeats the example it is from")
    shortest: float = Field(0.5, gt=0, le=1, description="least length as a share of the parent's")
    longest: float = Field(2.0, ge=1, le=1000, description="greatest length, in parents")
    language: bool = Field(True, description="the same script and language as the parent")
    image_similarity: float = Field(
        0.5, gt=0, lt=1, description="least structural similarity of an image to its original"
    )
    meaning: float = Field(
        0.7, gt=-1, lt=1, description="least nearness to the parent, by augment.embedding"
    )
    label_score: float | None = Field(
        None, gt=0, lt=1, description="least probability of the label, by the base model"
    )


class AugmentSettings(Settings):
    """New training examples made from the training part, before the first epoch."""

    affects = "answers"
    operations: tuple[Annotated[OperationSettings, BeforeValidator(_operation)], ...] = ()
    fresh: bool = Field(False, description="other examples in each epoch; not what models make")
    target: Literal["all", "balanced"] = Field(
        "all", description="balanced: as many more of rare classes as the commonest has"
    )
    language: Literal["auto", "English", "Chinese"] = "auto"
    protect: tuple[str, ...] = Field((), description="regular expressions of what stays")
    wordnet: Annotated[File | None, RESOURCE] = Field(None, description="folder of WordNet's files")
    synonyms: Annotated[File | None, RESOURCE] = Field(
        None, description="two columns, a word and a synonym"
    )
    translators: Annotated[tuple[TranslatorPlace, ...], RESOURCE] = Field(
        (), description="there and back, each a pivot"
    )
    prompt: str | None = Field(None, description="how a paraphrase is asked for; {text}")
    temperature: Temperature = Field(0.8, ge=0, le=100, description="of what the model writes")
    masked: Annotated[ModelPlace | None, RESOURCE] = Field(
        None, description="masked language model for words in context"
    )
    embedding: Annotated[EncoderPlace | None, RESOURCE] = Field(
        None, description="encoder that filters.meaning asks"
    )
    systems: tuple[str, ...] = Field((), description="system messages to vary among")
    filters: FilterSettings = FilterSettings()


class UnlabeledSettings(Settings):
    """Texts without labels, which the tuned model labels itself, to be tuned on as well."""

    affects = "guesses"
    file: Annotated[File | None, PLACE] = None
    target_precision: Annotated[float, CHOICE] = Field(
        0.9, gt=0, lt=1, description="least share of right labels"
    )
    most: Annotated[Annotated[int, Field(ge=1, le=10**7)] | Literal["auto"], CHOICE] = Field(
        "auto", description="pseudo-labels at most; auto: two for each labelled training example"
    )
    pool: int = Field(
        2000, ge=1, le=10**7, description="rows that are looked at, drawn by the seed"
    )
    labels: Annotated[Literal["hard", "soft"], CHOICE] = Field(
        "hard", description="soft: every likely label with its probability"
    )
    weight: Annotated[float, CHOICE] = Field(
        1.0, gt=0, le=1, description="of a sure pseudo-label beside a label"
    )
    rounds: int = Field(
        1, ge=1, le=100, description="each labels anew and tunes the base model afresh"
    )
    folds: Annotated[int, CHOICE] = Field(3, ge=2, le=100)
    seeds: Annotated[Seeds, CHOICE] = (0, 1, 2)
    consistency: int = Field(
        0, ge=0, le=1000, description="altered versions of a text that must all be answered alike"
    )
    operations: tuple[Annotated[OperationSettings, BeforeValidator(_operation)], ...] = Field(
        (OperationSettings(op="swap"), OperationSettings(op="delete")),
        min_length=1,
        description="how texts are altered",
    )
    train_on: Annotated[Literal["text", "altered"], CHOICE] = Field(
        "text", description="altered: a version of each text, answered as the text itself was"
    )
    samples: int = Field(
        5, ge=2, le=1000, description="answers drawn where there are no labels to score"
    )
    temperature: Temperature = Field(0.8, gt=0, le=100, description="of those answers")


class AblationSettings(Settings):
    """How `kilotune ablate` looks for a better recipe."""

    affects = "figures"
    search: Literal["ladder", "optuna"] = Field(
        "ladder", description="one factor at a time; optuna: several at once, by TPE"
    )
    folds: int = Field(5, ge=2, le=100)
    seeds: Seeds = (0, 1, 2)
    minutes: float | None = Field(
        None, gt=0, le=10**7, description="for the trials; None: no limit"
    )
    trials: int | None = Field(
        None, ge=1, le=10**6, description="trainings at most; None: no limit"
    )
    candidates: int = Field(20, ge=1, le=10**5, description="recipes that optuna may try")
    only: tuple[str, ...] = Field((), description="the factors to try; none given: all")
    factors: dict[str, tuple[Any, ...]] = Field(
        default_factory=dict, description="full names of settings and the values to try"
    )


class Recipe(Settings):
    """Every setting of one run."""

    affects = "run"
    preset: Annotated[str, FIGURES] = "auto"
    seed: Seed = 0
    model: ModelSettings = ModelSettings()
    data: DataSettings
    augment: AugmentSettings = AugmentSettings()
    unlabeled: UnlabeledSettings = UnlabeledSettings()
    tune: Annotated[Method, Field(discriminator="method")]
    decoding: DecodingSettings = DecodingSettings()
    judge: JudgeSettings = JudgeSettings()
    ablation: AblationSettings = AblationSettings()

    def with_settings(self, settings: Mapping[str, Any]) -> Self:
        """The recipe with other `settings` by their full names, as `{"tune.epochs": 3}`.

        Raises pydantic's ValidationError for values it cannot have, KeyError for an unknown part.
        """
        tree = self.model_dump()
        for name, value in settings.items():
            *parts, last = name.split(".")
            place = tree
            for part in parts:
                place = place[part]
            place[last] = value
        return type(self).model_validate(tree)


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting, or a part that holds settings, by its full name.

    `marks` are what it and its items are annotated with; `affects` is None of a part.
    """

    name: str
    marks: tuple[Any, ...]
    affects: Effect | None


def settings_of(model: type[Settings] = Recipe, prefix: str = "") -> Iterator[Setting]:
    """All settings and the parts that hold them; of `tune` the settings of every method."""
    for name, field in model.model_fields.items():
        parts = _parts(field.annotation)
        marks = (*field.metadata, *_annotated(field.annotation))
        affects = next((mark.effect for mark in marks if isinstance(mark, Affects)), model.affects)
        yield Setting(f"{prefix}{name}", marks, None if parts else affects)
        for part in parts:
            yield from settings_of(part, f"{prefix}{name}.")


def _parts(kind: Any) -> list[type[Settings]]:
    kinds = get_args(kind) or [kind]
    return [each for each in kinds if isinstance(each, type) and issubclass(each, Settings)]


def _annotated(kind: Any) -> Iterator[Any]:
    yield from getattr(kind, "__metadata__", ())
    for part in get_args(kind):
        yield from _annotated(part)

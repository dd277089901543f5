"""The baselines that a run fitted, as plain arrays and texts: what `predict --with` answers by."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, NonNegativeInt, PositiveInt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from kilotune.data.example import Message
from kilotune.data.files.writers import write_atomically
from kilotune.errors import KilotuneError
from kilotune.evaluation.baselines import BagOfWords, LinearClassifier, restored_vectorizer
from kilotune.runs.record import RunFolder
from kilotune.runs.schema_version import Document

Pooling = Literal["last", "mean"]

ARRAYS = "baselines.safetensors"
# What an encoder is known by: its embedding of this text.
PROBE = "What is this text about, and who wrote it?"
# Of a classifier.
PARTS = ("weights", "bias", "mean", "scale")


@dataclass(slots=True)
class FittedBaselines:
    """What each baseline learnt from all rows but the test's; None for one that was not asked.

    `copied` are the texts and answers that are copied from where answers are open, `encoder` is
    with the place of the encoder and its embedding of PROBE, `states` with a layer, how its states
    are pooled and how many tokens the mean leaves out, `shown` are the turns before each question.
    """

    tfidf: BagOfWords | None = None
    copied: tuple[list[str], list[str]] | None = None
    encoder: tuple[str, NDArray[np.float32], LinearClassifier] | None = None
    states: tuple[int, Pooling, int, LinearClassifier] | None = None
    shown: tuple[Message, ...] | None = None


class WordsRecord(BaseModel):
    """A bag of words: the terms in the order of their columns, of what they are."""

    labels: tuple[str, ...]
    terms: tuple[str, ...]
    characters: bool


class CopiedRecord(BaseModel):
    """Texts, and the answer of each."""

    texts: list[str]
    answers: list[str]


class EncoderRecord(BaseModel):
    """A classifier of embeddings, and whose."""

    place: str
    labels: tuple[str, ...]


class StatesRecord(BaseModel):
    """A classifier of hidden states, and of which."""

    layer: PositiveInt
    pooling: Pooling
    skip: NonNegativeInt
    labels: tuple[str, ...]


class ShownRecord(BaseModel):
    """The turns before each question."""

    turns: tuple[tuple[str, str], ...]


class BaselinesDocument(Document):
    """What of the fitted baselines is no array."""

    FILE = "baselines.json"

    tfidf: WordsRecord | None = None
    copied: CopiedRecord | None = None
    encoder: EncoderRecord | None = None
    states: StatesRecord | None = None
    few_shot: ShownRecord | None = None


def save_baselines(folder: RunFolder, fitted: FittedBaselines) -> None:
    """Write them into the folder of their run."""
    arrays: dict[str, NDArray[Any]] = {}
    document: dict[str, BaseModel] = {}
    if fitted.tfidf:
        words, classifier = fitted.tfidf.vectorizer, fitted.tfidf.classifier
        arrays |= {"tfidf.idf": words.idf_, **_arrays("tfidf", classifier)}
        document["tfidf"] = WordsRecord(
            labels=classifier.labels,
            terms=tuple(map(str, words.get_feature_names_out())),
            characters=words.analyzer == "char",
        )
    if fitted.copied:
        texts, answers = fitted.copied
        document["copied"] = CopiedRecord(texts=texts, answers=answers)
    if fitted.encoder:
        place, probe, classifier = fitted.encoder
        arrays |= {"encoder.probe": probe, **_arrays("encoder", classifier)}
        document["encoder"] = EncoderRecord(place=place, labels=classifier.labels)
    if fitted.states:
        layer, pooling, skip, classifier = fitted.states
        arrays |= _arrays("states", classifier)
        document["states"] = StatesRecord(
            layer=layer, pooling=pooling, skip=skip, labels=classifier.labels
        )
    if fitted.shown is not None:
        turns = tuple((message.role, message.text) for message in fitted.shown)
        document["few_shot"] = ShownRecord(turns=turns)
    if folder.writes:
        write_atomically(folder / ARRAYS, save(arrays))
        folder.write(BaselinesDocument(**document))


def load_baselines(folder: RunFolder) -> FittedBaselines:
    """Those of a run. Raises KilotuneError where there are none, or where they are damaged."""
    found = folder.read_if_there(BaselinesDocument)
    if found is None:
        raise KilotuneError(
            "no baselines were kept", where=str(folder.path), fix="Tune anew with this kilotune"
        )
    fitted = FittedBaselines()
    try:
        arrays = load_file(folder / ARRAYS)
        if words := found.tfidf:
            vectorizer = restored_vectorizer(words.terms, arrays["tfidf.idf"], words.characters)
            fitted.tfidf = BagOfWords(vectorizer, _classifier("tfidf", words.labels, arrays))
        if copied := found.copied:
            fitted.copied = copied.texts, copied.answers
        if encoder := found.encoder:
            classifier = _classifier("encoder", encoder.labels, arrays)
            fitted.encoder = encoder.place, arrays["encoder.probe"], classifier
        if states := found.states:
            classifier = _classifier("states", states.labels, arrays)
            fitted.states = states.layer, states.pooling, states.skip, classifier
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise folder.unreadable(ARRAYS, f"is damaged ({error})") from error
    if found.few_shot:
        fitted.shown = tuple(Message(role, text) for role, text in found.few_shot.turns)
    return fitted


def _arrays(name: str, classifier: LinearClassifier) -> dict[str, NDArray[np.float64]]:
    return {
        f"{name}.{part}": np.ascontiguousarray(getattr(classifier, part), dtype=np.float64)
        for part in PARTS
        if not isinstance(getattr(classifier, part), float)
    }


def _classifier(
    name: str, labels: tuple[str, ...], arrays: dict[str, NDArray[Any]]
) -> LinearClassifier:
    parts = {part: arrays[f"{name}.{part}"] for part in PARTS if f"{name}.{part}" in arrays}
    if len(parts["weights"]) != (1 if len(labels) == 2 else len(labels)):
        raise ValueError(f"{name} has other labels than weights")
    if any(
        parts[part].shape != parts["weights"].shape[1:] for part in ("mean", "scale") & parts.keys()
    ):
        raise ValueError(f"{name} has other means than weights")
    return LinearClassifier(labels, **parts)

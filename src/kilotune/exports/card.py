"""A model card for what was exported: written from the run's records, and computing nothing.

The metadata header is that of https://huggingface.co/docs/hub/model-cards.
"""

from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData, try_to_load_from_cache
from yaml import YAMLError

from kilotune.data.files.writers import to_json
from kilotune.evaluation.evidence import Figure
from kilotune.exports.finished import Finished
from kilotune.exports.jinja_templates import render_template
from kilotune.models.builtin import ORIGINS
from kilotune.models.public import CARD, on_hub, public_name
from kilotune.rendering.template import Opening
from kilotune.reports.view import RunView, read_run

# The Hub's names of metrics, by ours.
METRICS = {
    "accuracy": "accuracy", "macro_f1": "f1", "exact_match": "exact_match", "token_f1": "f1",
    "field_f1": "f1",
}  # fmt: skip
# Below so many examples of a class in the test, its own figures say little.
FEW = 20


def model_card(
    finished: Finished, form: str, *, sees: bool, merged: bool, source: str, standalone: bool
) -> str:
    """The text of README.md for the run's weights in `form`.

    `sees`: the model takes images. `merged`: the weights are a whole model, and not an adapter
    beside the model at `source`. `standalone`: the chat template there needs no arguments and opens
    answers as training did.
    """
    view = read_run(finished.folder)
    text = render_template(
        "card.md.j2",
        view=view,
        finished=finished,
        form=form,
        sees=sees,
        merged=merged,
        base=public_name(finished.recipe.model.name),
        on_hub=on_hub(finished.recipe.model.name),
        messages=_messages(finished, sees),
        arguments={} if standalone else {**finished.template.arguments},
        opening=Opening() if standalone else finished.template.opening,
        few=[row for row in view.tuned.classes if row.support < FEW],
        few_below=FEW,
        json=lambda value: to_json(value, indent=None),
    )
    return f"---\n{_header(finished, view, sees, merged, source).to_yaml()}\n---\n\n{text}"


def _header(
    finished: Finished, view: RunView, sees: bool, merged: bool, source: str
) -> ModelCardData:
    base, licence = _base(finished, source)
    pipeline = "image-text-to-text" if sees else "text-generation"
    return ModelCardData(
        base_model=base,
        base_model_relation=("finetune" if merged else "adapter") if base else None,
        library_name="transformers" if merged else "peft",
        license=licence,
        pipeline_tag=pipeline,
        tags=["kilotune", view.recipe.tune.method, view.task],
        model_name=finished.title,
        eval_results=_results(view, pipeline),
    )


def _results(view: RunView, pipeline: str) -> list[EvalResult]:
    """The tuned model's figures on the held-out test, with their intervals in their names."""
    data = view.recipe.data
    return [
        EvalResult(
            task_type=pipeline,
            dataset_type="private",
            dataset_name=(data.test or data.train).name,
            dataset_split="test",
            metric_type=METRICS.get(name, name),
            metric_name=f"{name} (95% interval {figure.low:.3f} to {figure.high:.3f}, "
            f"{view.examples} examples)",
            metric_value=round(figure.value, 4),
        )
        for name, figure in view.tuned.figures.items()
        if isinstance(figure, Figure)  # none of too few examples
    ]


def _base(finished: Finished, source: str) -> tuple[str | None, str | None]:
    """The base model's id on the Hub and its licence, each None where it is not known."""
    name = finished.recipe.model.name
    if name in ORIGINS:
        return ORIGINS[name]
    local = Path(source).is_dir()
    found = Path(source) / CARD if local else try_to_load_from_cache(name, CARD)
    if not isinstance(found, str | Path) or not Path(found).is_file():
        return (None if local else name), None
    try:
        licence = ModelCard.load(found, ignore_metadata_errors=True).data.get("license")
    except (OSError, ValueError, YAMLError):  # somebody else's file, and no reason to stop
        licence = None
    return (None if local else name), licence


def _messages(finished: Finished, sees: bool) -> list[dict[str, Any]]:
    """A conversation as the run put it, `{text}` for the user's own words."""
    words, system = finished.wording, finished.system

    def content(text: str) -> Any:
        return [{"type": "text", "text": text}] if sees else text

    told = [{"role": "system", "content": content(system)}] if system else []
    asked = content(words.question)
    if sees:
        asked = [{"type": "image", "path": "image.png"}, *asked]
    return [*told, {"role": "user", "content": asked}]

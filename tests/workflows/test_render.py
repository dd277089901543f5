"""Files as they would be trained on, with no weights anywhere."""

import json
from pathlib import Path
from typing import Any

import pytest

from kilotune.errors import KilotuneError
from kilotune.models.source import locate
from kilotune.preparation.prepare import prepare
from kilotune.progress import Silent
from kilotune.recipe.load import load_recipe
from kilotune.recipe.schema import Recipe
from kilotune.runs.record import RunFolder
from kilotune.session.fine_tuning import render as rendered
from kilotune.session.loading import open_session
from kilotune.workflows.render import render
from tests.support.tiny import CHATML, byte_tokenizer


@pytest.fixture(scope="module")
def tokenizer_only(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds a tokenizer and nothing else."""
    folder = tmp_path_factory.mktemp("tokenizer")
    byte_tokenizer().save_pretrained(folder)
    return folder


def recipe(data: Path, model: Path, **settings: Any) -> Recipe:
    tree = {"data": {"train": str(data), **settings}, "model": {"name": str(model)}}
    return load_recipe(settings=tree)


def test_the_tokenizer_is_enough_and_the_wording_is_that_of_a_run(
    labelled: Path, tokenizer_only: Path, tiny_model: Path
) -> None:
    seen = render(recipe(labelled, tokenizer_only))
    assert (seen.dataset.task, len(seen.rendered.renderings)) == ("classify", 40)
    assert seen.findings == ()
    prepared = prepare(recipe(labelled, tiny_model), Silent())
    session = open_session(prepared, locate(prepared.recipe.model), Silent())
    train, validation, _ = rendered(session)
    by_id = {rendering.example_id: rendering for rendering in seen.rendered.renderings}
    for rendering in (*train, *validation):
        assert rendering == by_id[rendering.example_id]


def test_what_is_trained_on_reaches_the_run(labelled: Path, tiny_model: Path) -> None:
    def last_trained(train_on: str) -> str:
        prepared = prepare(recipe(labelled, tiny_model, train_on=train_on), Silent())
        session = open_session(prepared, locate(prepared.recipe.model), Silent())
        (first, *_), _, _ = rendered(session)
        return str(session.prompting.template.tokenizer.decode(first.token_ids[-2:]))

    assert last_trained("auto").endswith("<|im_end|>")
    assert last_trained("completion") == "<|im_end|>\n"


def test_the_system_message_and_the_question_are_the_recipes(
    labelled: Path, tokenizer_only: Path
) -> None:
    seen = render(recipe(labelled, tokenizer_only, system="One of {labels}.", question="{text}!"))
    text = seen.template.tokenizer.decode(seen.rendered.renderings[0].token_ids)
    assert text.startswith("<|im_start|>system\nOne of bad, good.<|im_end|>\n")
    assert "user\nfilm 0 was great!<|im_end|>" in text


def test_the_template_of_a_run_is_saved_with_it_and_used_by_predict(
    labelled: Path, tmp_path: Path
) -> None:
    from kilotune.workflows.predict import predict
    from kilotune.workflows.run import run
    from tests.support.tiny import write_tiny_model

    model = write_tiny_model(tmp_path / "base")
    (model / "chat_template.jinja").unlink()
    file = tmp_path / "own.jinja"
    file.write_text(CHATML.replace("<|im_start|>", "<|im_start|>@"))
    settings = {
        "data": {"train": str(labelled)},
        "model": {"name": str(model), "chat_template": str(file), "precision": "float32"},
    }
    chosen = load_recipe(settings=settings, overrides=["tune.epochs=1"])
    finished = run(chosen, tmp_path / "run")
    assert (finished.weights / "chat_template.jinja").read_text() == file.read_text()
    file.unlink()
    predict(finished.folder, labelled, tmp_path / "out.csv")
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 41
    written = json.loads((RunFolder(finished.folder).path / "findings.json").read_text())
    assert [f["code"] for f in written["findings"] if f["code"] == "template-chosen"] == []


def test_a_model_that_is_not_there_is_one_clear_error(labelled: Path, tmp_path: Path) -> None:
    with pytest.raises(KilotuneError, match="no tokenizer there"):
        render(recipe(labelled, tmp_path / "none"))

"""The model card: the Hub's header, the run's figures, and nothing that is not in its records."""

import contextlib
import io
import json
import re
import shutil
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

from kilotune.errors import KilotuneError
from kilotune.exports import FORMS, export
from kilotune.messages.sentences import phrase, say
from kilotune.runs.record import RunFolder
from kilotune.workflows.run import open_run
from tests.support.records import written


def card(folder: Path) -> ModelCard:
    """The card as the Hub's own library reads it."""
    return ModelCard.load(folder / "README.md")


def test_the_header_is_the_hubs_with_the_runs_figures_and_intervals(
    llama_run: Path, tmp_path: Path
) -> None:
    header = card(export(llama_run, "adapter", tmp_path / "out")).data
    assert (header.library_name, header.pipeline_tag) == ("peft", "text-generation")
    assert header.tags == ["kilotune", "lora", "classify"]
    assert header.model_name == "Tiny Films"
    tuned = written(llama_run, "judgement.json")["test"][-1]
    results = {result.metric_name.split()[0]: result for result in header.eval_results}
    assert set(results) == set(tuned["figures"]) == {"accuracy", "macro_f1"}
    for name, figure in tuned["figures"].items():
        assert results[name].metric_value == pytest.approx(figure["value"], abs=1e-4)
        interval = f"95% interval {figure['low']:.3f} to {figure['high']:.3f}, 24 examples"
        assert interval in results[name].metric_name
    # A folder of this machine is no model of the Hub.
    assert header.base_model is None
    assert header.license is None


def test_base_and_licence_are_those_that_are_known(llama_run: Path, tmp_path: Path) -> None:
    from kilotune.exports.card import _base
    from kilotune.exports.finished import open_finished

    finished = open_finished(llama_run)
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# Base\n")
    assert _base(finished, str(folder)) == (None, "mit")
    settings = finished.recipe.model.model_copy(update={"name": "smollm2"})
    object.__setattr__(finished, "recipe", finished.recipe.model_copy(update={"model": settings}))
    assert _base(finished, "") == ("HuggingFaceTB/SmolLM2-135M-Instruct", "apache-2.0")


def test_the_text_says_data_figures_verdict_limits_and_recipe(
    llama_run: Path, tmp_path: Path
) -> None:
    text = card(export(llama_run, "merged", tmp_path / "out")).text
    verdict = open_run(llama_run).verdict
    for said in (
        f"**Verdict:** {verdict.summary}.",
        *(f"**{say(remark)}.**" for remark in verdict.remarks),
        "and 24 held-out test examples from `films.csv`",
        "| tuned model |",
        "one seed (0)",
        "- Fewer than 20 test examples of bad, good",
        "Text: {text}\\nLabel:",
        "learning_rate: 0.01",
        "train: films.csv",
    ):
        assert said in text
    # Nothing of the machine that the model was tuned on.
    assert str(llama_run.parent) not in text


@pytest.mark.usefixtures("converter_stand_in")
@pytest.mark.parametrize("form", sorted(FORMS))
def test_every_form_has_a_card_that_says_how_it_is_used(
    form: str, llama_run: Path, qwen_run: Path, tmp_path: Path
) -> None:
    run = qwen_run if form == "qwen-adapter" else llama_run
    found = card(export(run, form, tmp_path / "out"))
    used = {
        "gguf": "llama-server -m tiny-films-F16.gguf --jinja",
        "vllm": "sh serve.sh",
        "ollama": "sh create.sh",
        "gguf-instructions": "sh convert.sh",
    }
    assert used.get(form, "GenerationConfig.from_pretrained(folder)") in found.text
    adapter = form in ("adapter", "qwen-adapter", "vllm")
    assert found.data.library_name == ("peft" if adapter else "transformers")


@pytest.mark.parametrize("form", ["adapter", "merged"])
def test_the_code_in_the_card_runs_and_answers_as_the_run_did(
    form: str,
    llama_run: Path,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = card(export(llama_run, form, tmp_path / "out")).text
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    code = code.replace(f'"{tiny_model.name}"', f'"{tiny_model}"')  # as the card says
    row = RunFolder(llama_run).read_predictions()[0]
    monkeypatch.chdir(tmp_path / "out")
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(code.replace("{text}", row["prompt"]), {})
    assert said.getvalue().strip() == row["tuned_output"]


def test_a_run_without_its_records_has_no_card(llama_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(llama_run, run)
    (run / "freeze_proof.json").unlink()
    with pytest.raises(KilotuneError, match=r"freeze_proof\.json is missing"):
        export(run, "adapter", tmp_path / "out")
    assert not (tmp_path / "out").exists()


NASTY = "<b>x</b>|`a`\n# [c](http://d)"


def test_words_of_users_stay_words_and_the_header_stays_yaml(
    llama_run: Path, tmp_path: Path
) -> None:
    run = RunFolder(shutil.copytree(llama_run, tmp_path / "a\n---\n# b: ["))
    judged, verdict = written(run, "judgement.json"), written(run, "verdict.json")
    judged["test"][-1]["classes"][0]["label"] = NASTY
    (run / "judgement.json").write_text(json.dumps(judged))
    nasty = phrase("as-recorded", text=NASTY)
    verdict |= {"said": nasty, "remarks": [nasty]}
    (run / "verdict.json").write_text(json.dumps(verdict))
    found = card(export(run.path, "adapter", tmp_path / "out"))
    assert found.data.model_name == "a\n---\n# b: ["
    tokens = MarkdownIt("gfm-like", {"linkify": False, "html": True}).parse(found.text)
    children = [child for token in tokens for child in token.children or []]
    assert {"html_inline", "html_block", "link_open"}.isdisjoint(
        [each.type for each in (*tokens, *children)]
    )
    said = ["".join(c.content for c in t.children or []) for t in tokens if t.type == "inline"]
    words = " ".join(NASTY.split())
    assert said.count(words) == 1  # the cell of the table
    assert f"Verdict: {words}." in said
    assert f"{words}." in said
    kinds = [token.type for token in tokens]
    rows = "/".join(kinds).split("tr_open")[1:]
    assert {row.count("td_open") + row.count("th_open") for row in rows} == {5}
    assert [t.content for t in tokens if t.type == "heading_open"] == [""] * 7

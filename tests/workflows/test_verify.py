"""`kilotune verify` on tiny runs: exports answer as judged, and what was spoilt is found."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import kilotune
from kilotune.cli.main import app
from kilotune.errors import KilotuneError
from kilotune.exports import export
from kilotune.recipe.load import load_recipe
from kilotune.runs.record import RunFolder
from kilotune.workflows.verify import verify
from tests.support.records import written
from tests.support.tiny import labelled_csv
from tests.support.tiny_vision import even_or_odd, write_digits, write_kind


@pytest.fixture
def run(tiny_run: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_run, tmp_path / "run")


@pytest.mark.parametrize(("form", "program"), [("merged", "transformers"), ("adapter", "peft")])
def test_an_export_answers_as_judged_and_the_record_report_and_cards_say_so(
    form: str, program: str, run: Path, tmp_path: Path
) -> None:
    out = export(run, form, tmp_path / "out")
    judged = written(run, "judgement.json")["test"][-1]["figures"]
    found = verify(out)
    assert found.program.startswith(f"{program} ")
    assert (found.prompts, found.equal, found.apart, found.faults) == (16, 16, (), ())
    assert {name: figure.value for name, figure in found.figures.items()} == {
        name: figure["value"] for name, figure in judged.items()
    }
    assert found.form == "float32"
    assert found.size == sum(f.stat().st_size for f in out.glob("*.safetensors"))
    assert found.tokens >= 16
    on_record = written(run, "verification.json")["found"]
    assert [one["export"] for one in on_record] == ["out"]
    for page in (run / "report.html", run / "adapter" / "README.md", out / "README.md"):
        assert "16 of 16 answers equal" in page.read_text(encoding="utf-8"), page
    verify(out, run)
    assert len(written(run, "verification.json")["found"]) == 1


def test_the_runs_own_adapter_can_be_verified_and_cards_that_were_changed_stay(
    run: Path, tmp_path: Path
) -> None:
    assert verify(run / "adapter", examples=3).equal == 3
    out = export(run, "merged", tmp_path / "out")
    (out / "README.md").write_text("Mine.")
    verify(out, examples=3)
    assert (out / "README.md").read_text() == "Mine."


def test_an_archived_run_is_verified_and_left_as_it_is(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = export(run, "merged", tmp_path / "out")
    before = (run / "report.html").read_bytes()
    monkeypatch.setattr(os, "access", lambda path, _: Path(path) != run)
    assert verify(out, run, examples=2).equal == 2
    assert not (run / "verification.json").exists()
    assert (run / "report.html").read_bytes() == before


def test_where_an_answer_parts_is_said_with_the_gap(run: Path, tmp_path: Path) -> None:
    out = export(run, "merged", tmp_path / "out")
    weights = load_file(out / "model.safetensors")
    noise = torch.randn(weights["model.norm.weight"].shape, generator=torch.manual_seed(0))
    weights["model.norm.weight"] += 3 * noise
    save_file(weights, out / "model.safetensors", {"format": "pt"})
    found = verify(out)
    assert found.apart == ()
    assert [fault["phrase"] for fault in found.faults] == ["verify-answers"]
    rows = {row["id"]: row for row in RunFolder(run).read_predictions()}
    for one in found.differences:
        assert one.judged == rows[one.id]["tuned_output"] != one.said
        assert one.token is not None
        assert one.gap is None or one.gap > 0
    assert found.unexplained
    # Runs of before kept no token ids: what they may have been is tried.
    path = run / "predictions.parquet"
    folder = RunFolder(run)
    older = [{k: v for k, v in row.items() if k != "tuned_token_ids"} for row in rows.values()]
    path.unlink()
    folder.write_predictions(older)
    assert [d.gap for d in verify(out).differences] == [d.gap for d in found.differences]


def changed(file: Path, **values: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_another_template_and_sampling_are_found_and_the_exit_status_says_so(
    run: Path, tmp_path: Path
) -> None:
    out = export(run, "merged", tmp_path / "out")
    template = out / "chat_template.jinja"
    template.write_text(template.read_text().replace("assistant", "bot"))
    changed(out / "generation_config.json", do_sample=True, temperature=1.5)
    asked = ["verify", str(out), "--run", str(run), "--json"]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 1
    said = json.loads(done.stdout)
    assert said["status"] == 1
    assert len(said["apart"]) == said["prompts"] == 16
    assert said["faults"][0].startswith("16 of 16 prompts are other token ids than were judged")
    assert said["faults"][1].startswith("By itself it samples answers")
    person = CliRunner().invoke(app, ["verify", str(out), "-n", "2"])
    assert person.exit_code == 1
    assert "0 of 2 prompts are the token ids that were judged." in person.stdout
    good = CliRunner().invoke(app, ["verify", str(export(run, "adapter", tmp_path / "good"))])
    assert good.exit_code == 0
    assert "16 of 16 answers equal" in good.stdout


def test_a_template_with_arguments_and_another_opening_needs_neither_in_an_export(
    tiny_model: Path, tmp_path: Path
) -> None:
    base = shutil.copytree(tiny_model, tmp_path / "base")
    template = base / "chat_template.jinja"
    # Where prompts for generation end, training goes on otherwise.
    text = template.read_text().replace("<|im_start|>assistant\n{% endif", "<|im_start|>assistant\n"
        "{% if shout %}LOUD{% endif %}??{% endif")  # fmt: skip
    template.write_text(text)
    data = labelled_csv(tmp_path / "films.csv", 60)
    settings = {
        "data": {"train": str(data)},
        "model": {
            "name": str(base), "precision": "float32", "template_arguments": {"shout": True},
        },
    }  # fmt: skip
    overrides = ["tune.epochs=1", "judge.bootstrap_samples=50", "judge.base_check=say"]
    run = kilotune.run(load_recipe(settings=settings, overrides=overrides), tmp_path / "run").folder
    for form in ("merged", "adapter"):
        out = export(run, form, tmp_path / form)
        found = verify(out)
        assert (found.apart, found.faults) == ((), ()), form
        assert found.equal == found.prompts
        assert "shout" not in (out / "README.md").read_text().split("## Recipe")[0]
        assert "opens answers otherwise" not in (out / "README.md").read_text()
    own = (run / "adapter" / "README.md").read_text()
    assert '"shout": true' in own
    assert "opens answers otherwise" in own


def test_what_cannot_be_verified_is_refused(run: Path, tmp_path: Path) -> None:
    out = export(run, "merged", tmp_path / "out")
    for arguments, said in (
        ({"program": "excel"}, "no program 'excel'"),
        ({"program": "peft"}, "nothing that peft loads"),
        ({"program": "llama.cpp"}, "no GGUF file"),
    ):
        with pytest.raises(KilotuneError, match=said):
            verify(out, **arguments)
    with pytest.raises(KilotuneError, match="no such folder or file"):
        verify(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(KilotuneError, match="neither an exported folder"):
        verify(tmp_path / "empty", run)
    (out / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(KilotuneError, match="cannot be loaded"):
        verify(out)
    recipe = run / "recipe.yaml"
    data = next(line for line in recipe.read_text().splitlines() if "train: " in line)
    shutil.copy(data.split("train: ")[1], tmp_path / "films.csv")
    with (tmp_path / "films.csv").open("a") as file:
        file.write("one more,good\n")
    with pytest.raises(KilotuneError, match="the data have changed"):
        verify(out, moved=[f"data.train={tmp_path / 'films.csv'}"])


def test_the_run_is_looked_for_and_another_is_refused(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = export(run, "merged", tmp_path / "elsewhere" / "deep" / "out")
    monkeypatch.chdir(tmp_path / "elsewhere" / "deep")
    with pytest.raises(KilotuneError, match="the run that it was exported from") as caught:
        verify(out)
    assert "--run RUN" in caught.value.fix
    monkeypatch.chdir(tmp_path)
    assert verify(out, examples=1).equal == 1
    changed(out / "kilotune.json", tuned="0" * 64)
    with pytest.raises(KilotuneError, match=r"an export of another run \(run\)"):
        verify(out, run)


def test_prompts_with_images_are_put_too(tmp_path: Path) -> None:
    model = write_kind("qwen2_vl", tmp_path / "model")
    data = write_digits(tmp_path, range(40), "Is this digit even or odd?", even_or_odd)
    settings = {
        "data": {"train": str(data)},
        "model": {"name": str(model), "precision": "float32", "max_pixels": 3136},
        "tune": {"epochs": 1, "batch_size": 4},
        "judge": {"train_sample": 4, "bootstrap_samples": 50},
    }
    run = kilotune.run(load_recipe(settings=settings), tmp_path / "run").folder
    for form in ("merged", "adapter"):
        found = verify(export(run, form, tmp_path / form), run)
        assert (found.prompts, found.apart, found.faults) == (8, (), ()), form
        assert found.equal == 8

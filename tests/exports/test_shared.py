"""What is made to be shared says nothing of the machine it was made on."""

import platform
import shutil
import socket
from pathlib import Path

import pytest
from peft import PeftModel
from transformers import AutoModelForCausalLM

import kilotune
from kilotune.errors import KilotuneError
from kilotune.exports import FORMS, export
from kilotune.recipe.load import load_recipe
from tests.support.records import written
from tests.support.tiny import labelled_csv

USER, HOST = "jane.marker", "marker-host"


@pytest.fixture(scope="module")
def home(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of a user, with two runs on a machine of some name."""
    home = tmp_path_factory.mktemp("home") / USER
    shutil.copytree(tiny_model, home / "models" / "tiny-base")
    data = labelled_csv(home / "films.csv")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        patch.setenv("USER", USER)
        patch.setattr(platform, "node", lambda: HOST)
        patch.setattr(socket, "gethostname", lambda: HOST)
        for method in ("lora", "full"):
            overrides = [
                "model.precision=float32", "judge.bootstrap_samples=50", "tune.epochs=1",
                f"tune.method={method}", "data.system=/no_think Say a label.",
            ]  # fmt: skip
            settings = {
                "data": {"train": str(data)},
                "model": {"name": str(home / "models" / "tiny-base")},
            }
            kilotune.run(load_recipe(settings=settings, overrides=overrides), home / method)
    return home


def traces(folder: Path) -> list[str]:
    """The files below `folder` in which the user or the machine is named."""
    marks = [mark.encode() for mark in (USER, HOST, str(Path.home()))]
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return [path.name for path in files if any(mark in path.read_bytes() for mark in marks)]


@pytest.mark.parametrize(("method", "saved"), [("lora", "adapter"), ("full", "model")])
def test_the_saved_weights_and_the_page_name_no_place(home: Path, method: str, saved: str) -> None:
    assert traces(home / method / saved) == []
    page = (home / method / "report.html").read_text(encoding="utf-8")
    body = page.partition("<body>")[2]
    for mark in (USER, HOST, str(Path.home())):
        assert mark not in body
    assert "name: tiny-base" in body
    assert "train: films.csv" in body
    assert "system: /no_think Say a label." in body  # begins like a path, and is none
    # The run's own record is what it goes on by.
    assert USER in (home / method / "recipe.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.usefixtures("converter_stand_in")
@pytest.mark.parametrize("form", sorted(FORMS))
def test_no_export_names_a_place(home: Path, method: str, form: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    none = form == "qwen-adapter" or (method, form) == ("full", "adapter")
    if none:
        with pytest.raises(KilotuneError):
            export(home / method, form, out)
        return
    assert traces(export(home / method, form, out)) == []
    assert "tiny-base" in (out / "README.md").read_text(encoding="utf-8")


def test_the_saved_adapter_has_the_runs_own_card_and_loads_on_a_base_that_is_given(
    home: Path,
) -> None:
    card = (home / "lora" / "adapter" / "README.md").read_text(encoding="utf-8")
    verdict = written(home / "lora", "verdict.json")["name"]
    assert f"**Verdict:** {verdict}: " in card
    assert 'base = "tiny-base"  # put the folder of the base model here' in card
    assert "PeftModel.from_pretrained(model, folder)" in card
    base = AutoModelForCausalLM.from_pretrained(home / "models" / "tiny-base")
    tuned = PeftModel.from_pretrained(base, home / "lora" / "adapter")
    assert tuned.peft_config["default"].base_model_name_or_path == "tiny-base"


def test_an_adapter_of_before_bases_were_named_is_exported_without_its_place(
    home: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(home / "lora", tmp_path / "run")
    config = run / "adapter" / "adapter_config.json"
    text = config.read_text(encoding="utf-8")
    config.write_text(text.replace('"tiny-base"', f'"{home}/models/tiny-base"'), encoding="utf-8")
    assert traces(run / "adapter") == ["adapter_config.json"]
    assert traces(export(run, "adapter", tmp_path / "out")) == []

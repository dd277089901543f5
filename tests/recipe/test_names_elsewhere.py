"""Names that other trainers have for settings."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kilotune.cli.main import app
from kilotune.errors import KilotuneError
from kilotune.recipe.load import load_recipe
from kilotune.recipe.problems import METHODS, names_elsewhere, setting_names

ROOT = Path(__file__).parents[2]
DATA = {"data": {"train": "x.csv"}}
TABLES = names_elsewhere()
OWN = {
    *setting_names(),
    *(n for method in METHODS.values() for n in setting_names(method, "tune.")),
}


def test_what_they_are_here_is_a_setting_and_they_are_none() -> None:
    assert set(TABLES["settings"].values()) <= OWN
    assert not {*TABLES["settings"], *TABLES["instead"]} & {n.rpartition(".")[2] for n in OWN}
    assert not set(TABLES["settings"]) & set(TABLES["instead"])


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("lr", "here it is tune.learning_rate"),
        ("num_train_epochs", "here it is tune.epochs"),
        ("tune.lora_rank", "here it is tune.rank"),
        ("lora_r", "here it is tune.rank"),
        ("lora_target", "here it is tune.target_modules"),
        ("cutoff_len", "here it is data.max_length"),
        ("gradient_accumulation_steps", "tune.batch_size counts the examples of a whole step"),
        ("optim", "it is always AdamW"),
        ("packing", "examples are packed"),
        ("data.neftune_noise_alpha", "noise in embeddings is not there"),
    ],
)
def test_a_setting_of_another_trainer_is_said_by_its_name_here(
    name: str, said: str, tmp_path: Path
) -> None:
    with pytest.raises(KilotuneError, match=f"{re.escape(name)}: no such setting; {said}"):
        load_recipe(settings=DATA, overrides=[f"{name}=1"])
    recipe = tmp_path / "r.yaml"
    part, _, last = name.rpartition(".")
    recipe.write_text(f"data: {{train: x.csv}}\n{part or 'tune'}: {{{last}: 1}}\n".replace(
        "data: {train: x.csv}\ndata: {", "data: {train: x.csv, "
    ))  # fmt: skip
    with pytest.raises(KilotuneError, match=f"{last}: no such setting; {said}"):
        load_recipe(recipe)


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--lr", "--set tune.learning_rate=…"),
        ("--lora-r", "--set tune.rank=…"),
        ("--epochs", "--set tune.epochs=…"),
        ("--output_dir", "the folder is an option, --out"),
    ],
)
def test_an_option_of_another_trainer_is_said_too(option: str, said: str) -> None:
    result = CliRunner().invoke(app, ["run", "x.csv", option, "1"], env={"COLUMNS": "200"})
    assert result.exit_code == 2
    shown = " ".join(result.stderr.replace("│", " ").split())
    assert f"No such option: {option}; " in shown
    assert said in shown


def test_an_option_that_nobody_has_is_refused_as_before() -> None:
    result = CliRunner().invoke(app, ["run", "x.csv", "--outt", "1"], env={"COLUMNS": "200"})
    assert "--outt" in result.stderr
    assert "--out," in result.stderr


def test_the_page_has_both_tables() -> None:
    page = (ROOT / "docs" / "names-elsewhere.md").read_text(encoding="utf-8")
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if " | " in line]
    found: dict[str, dict[str, str]] = {"settings": {}, "instead": {}}
    for left, right in rows:
        if re.fullmatch(r"`[\w.]+`", left) and right.startswith("`"):
            found["settings"] |= dict.fromkeys(re.findall(r"`(\w+)`", right), left.strip("`"))
        else:
            found["instead"] |= dict.fromkeys(re.findall(r"`(\w+)`", left), right)
    assert found == TABLES

"""A command that is advised can be given as it is."""

from pathlib import Path

import pytest

from kilotune.recipe.advice import advised, next_commands


@pytest.mark.parametrize(
    ("text", "option"),
    [
        ("data: {train: a.csv}", ""),
        ("data: {train: a.csv}\njudge: {metric: 'own:score'}", " --trust-code"),
        ("data: {train: a.csv}\nmodel: {trust_remote_code: true}", " --trust-code"),
        ("data: {train: a.csv}\nablation: {factors: {judge.metric: ['a:b']}}", " --trust-code"),
        ("judge: {metric: 'own:score'}", ""),  # damaged, which the command itself says
        (None, ""),
    ],
)
def test_code_that_the_recipe_names_is_trusted_in_it(
    text: str | None, option: str, tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.yaml"
    if text is not None:
        recipe.write_text(text)
    assert advised("resume", tmp_path) == f"kilotune resume {tmp_path}{option}"
    assert advised("run", recipe) == f"kilotune run {recipe}{option}"


def test_a_place_that_a_shell_would_cut_is_quoted(tmp_path: Path) -> None:
    folder = tmp_path / "my runs"
    assert advised("resume", folder) == f"kilotune resume '{folder}'"


def test_next_commands_need_no_place_of_this_machine(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("data: {train: a.csv}\njudge: {metric: 'own:score'}")
    found = next_commands(tmp_path, ["--set tune.epochs=6"], Path("my run"))
    assert found == ["kilotune run 'my run/recipe.yaml' --trust-code --set tune.epochs=6"]
    (own,) = next_commands(tmp_path, ["--set tune.epochs=6"])
    assert own == f"kilotune run {tmp_path}/recipe.yaml --trust-code --set tune.epochs=6"

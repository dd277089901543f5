"""One option has one name, one meaning and one default in all commands."""

from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from kilotune.cli.main import app
from kilotune.errors import KilotuneError
from kilotune.recipe.schema import Recipe

COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]
runner = CliRunner()


def options(command: str) -> dict[str, Any]:
    found = [param for param in COMMANDS[command].params if param.param_type_name == "option"]
    return {max(param.opts, key=len): param for param in found}


DATA = {"--text", "--label", "--group", "--column", "--format", "--images", "--keep", "--ignore"}
RENDERED = {
    "--split", "--train-on", "--system", "--model", "--chat-template", "--preset", "--set",
    "--task",
}  # fmt: skip


def test_what_is_checked_planned_and_rendered_can_be_run() -> None:
    run = DATA | RENDERED | {"--val", "--test", "--json"}
    assert set(options("run")) == run | {"--out", "--unlabeled", "--trust-code"}
    assert set(options("plan")) == run | {"--trust-code"}
    assert set(options("render")) == run - {"--val", "--test"} | {"-n", "--trust-code"}
    own = {"--tokenizer", "--label-errors", "--out-of-fold", "--fix"}
    assert set(options("check")) == run - RENDERED | {"--split", "--task", "--set"} | own
    assert set(options("convert")) == DATA | {"--json", "--to", "--force"}
    own = {"--out", "--op", "--copies", "--alpha", "--balanced", "--translator", "--preview"}
    trial = {"--trial", "--folds", "--seeds"}
    taken = {"--task", "--val", "--test", "--model", "--set", "--trust-code", "--json"}
    assert set(options("augment")) == DATA | taken | own | trial
    own = {"--minutes", "--trials", "--factor", "--out", "--ray", "--ray-cpus", "--ray-gpus"}
    taken = {"--test", "--model", "--preset", "--set", "--trust-code", "--json"}
    assert set(options("ablate")) == taken | own


def test_an_option_means_the_same_wherever_it_is() -> None:
    meanings: dict[str, set[tuple[object, ...]]] = {}
    for command in COMMANDS:
        for name, param in options(command).items():
            said = (param.help, param.metavar, param.show_default, param.default)
            meanings.setdefault(name, set()).add(said)
    assert {name for name, said in meanings.items() if len(said) > 1} == {"--out", "--to"}


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_option_says_its_default(command: str) -> None:
    for name, param in options(command).items():
        assert param.required or param.show_default not in (None, False), name
        # True shows the default itself, so there must be one.
        assert param.required or param.show_default is not True or param.default is not None, name


GIVEN = {
    "--text": "body", "--label": "kind", "--group": "author", "--column": "text=body",
    "--format": "text-label", "--task": "classify", "--train-on": "last", "--system": "Be brief.",
    "--model": "here", "--chat-template": "plain", "--preset": "article", "--set": "seed=7",
}  # fmt: skip


def test_run_plan_and_render_make_the_same_recipe_of_the_same_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Recipe] = []

    def caught(recipe: Recipe, *_: object) -> None:
        made.append(recipe)
        raise KilotuneError("caught")

    # The last one last: a module that is imported meanwhile would keep what is patched here.
    for place in (
        "kilotune.workflows.plan.plan",
        "kilotune.workflows.render.render",
        "kilotune.preparation.prepare.prepare",
    ):
        monkeypatch.setattr(place, caught)
    source = tmp_path / "a.csv"
    source.write_text("body,kind,author\nx,y,z\n")
    given = [word for pair in GIVEN.items() for word in pair]
    for command in ("run", "plan", "render"):
        assert runner.invoke(app, [command, str(source), *given]).exit_code == 2
    first, *others = made
    assert others == [first, first]
    data, model = first.data, first.model
    assert (data.text, data.label, data.group) == ("body", "kind", "author")
    assert (data.columns, data.format, data.task) == ({"text": "body"}, "text-label", "classify")
    assert (data.train_on, data.system, first.seed) == ("last", "Be brief.", 7)
    assert (model.name, model.chat_template, first.preset) == ("here", "plain", "article")


def test_options_go_over_the_recipe_that_all_commands_take(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("body,kind\n" + "".join(f"word {i},x\n" for i in range(12)))
    recipe = tmp_path / "r.yaml"
    recipe.write_text("data: {train: a.csv, text: body, label: none}\n")
    result = runner.invoke(app, ["check", str(recipe)])
    assert (result.exit_code, "no column 'none'" in result.stderr) == (2, True)
    result = runner.invoke(app, ["check", str(recipe), "--label", "kind", "--json"])
    assert '"single-class"' in result.stdout, result.output


def test_check_takes_any_setting_of_the_recipe(tmp_path: Path) -> None:
    source = tmp_path / "a.csv"
    source.write_text("body,kind\n" + "".join(f"word {i},x\n" for i in range(12)))
    named = ["--set", "data.text=body", "--set", "data.label=kind"]
    result = runner.invoke(app, ["check", str(source), *named, "--json"])
    assert '"single-class"' in result.stdout, result.output
    result = runner.invoke(app, ["check", str(source), "--set", "data.txt=body"])
    assert (result.exit_code, "did you mean data.text?" in result.stderr) == (2, True)

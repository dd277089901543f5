"""What a command refuses rather than pass over."""

import pytest
from typer.testing import CliRunner

from kilotune.cli.main import app


def said(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})
    return result.exit_code, " ".join(result.output.replace("│", " ").split())


@pytest.mark.parametrize("second", [["--test", "b.csv"], ["--test=b.csv"], ["--test", "a.csv"]])
def test_an_option_of_one_value_is_not_given_twice(second: list[str]) -> None:
    code, output = said("run", "x.csv", "--test", "a.csv", *second)
    assert code == 2
    assert "--test is given 2 times, and takes one value" in output


def test_what_may_be_repeated_is() -> None:
    settings = ("--set", "tune.rank=4", "--set", "tune.epochs=1", "--json", "--json")
    code, output = said("run", "no-such-file.csv", *settings)
    assert code == 2
    assert "no such file" in output
    assert "times" not in output

"""A dataclass as a parameter of a command: its fields are options."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from kilotune.cli.option_groups import Only, expanded


@dataclass(frozen=True)
class Size:
    wide: Annotated[int, typer.Option(min=1, help="In cells.")] = 3
    high: Annotated[int, typer.Option("--tall")] = 4
    marks: Annotated[list[str] | None, typer.Option("--mark")] = None


def answer(command: Callable[..., None], *arguments: str) -> tuple[int, str]:
    app = typer.Typer()
    app.command()(expanded(command))
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.output


def show(name: str, *, first: bool = False, size: Size, last: bool = False) -> None:
    """Show."""
    print(name, first, size, last)


def show_height(*, size: Annotated[Size, Only("high")]) -> None:
    print(size)


def test_fields_are_options_and_come_back_as_the_dataclass() -> None:
    assert answer(show, "x") == (0, f"x False {Size()} False\n")
    given = ("x", "--wide", "5", "--mark", "a", "--mark", "b", "--last")
    assert answer(show, *given) == (0, f"x False {Size(5, 4, ['a', 'b'])} True\n")
    status, said = answer(show, "x", "--wide", "0")
    assert (status, "Invalid value for '--wide'" in said) == (2, True)


def test_options_stand_where_the_dataclass_stood() -> None:
    _, said = answer(show, "--help")
    places = [said.index(f"--{name} ") for name in ("first", "wide", "tall", "mark", "last")]
    assert places == sorted(places)
    assert "In cells." in said


def test_fields_that_a_command_has_not_keep_their_defaults() -> None:
    assert answer(show_height, "--tall", "9") == (0, f"{Size(3, 9)}\n")
    assert answer(show_height, "--wide", "9")[0] == 2


def test_two_options_of_one_name_are_refused() -> None:
    def twice(wide: int = 0, *, size: Size) -> None:
        pass

    with pytest.raises(ValueError, match="duplicate parameter name: 'wide'"):
        expanded(twice)


def test_an_option_that_a_group_has_not_is_refused() -> None:
    def misspelt(*, size: Annotated[Size, Only("hihg")]) -> None:
        pass

    with pytest.raises(ValueError, match="size has no options hihg"):
        expanded(misspelt)

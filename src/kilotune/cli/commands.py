"""A command that refuses what would be passed over, and says what was meant."""

from collections import Counter
from typing import Any

from typer.core import TyperCommand

from kilotune.recipe.problems import names_elsewhere, setting_names


class Command(TyperCommand):
    """One whose unknown options are looked for among the settings of a recipe."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As typer does, but for options of one value that are given twice: those are refused.

        An option that is a setting's name, here or elsewhere, is said to be.
        """
        try:
            _, _, given = self.make_parser(ctx).parse_args(list(args))
        except Exception as error:
            # typer has its own copy of click's NoSuchOption.
            name = str(getattr(error, "option_name", "")).lstrip("-").replace("-", "_")
            if name and self._sets() and (meant := _meant(name)):
                error.message = f"No such option: {error.option_name}; {meant}"  # type: ignore[attr-defined]
                error.possibilities = None  # type: ignore[attr-defined]
            raise
        for option, times in Counter(given).items():
            single = not (
                option.multiple or option.nargs == -1 or getattr(option, "is_flag", False)
            )
            if times > 1 and single and option.param_type_name == "option":
                ctx.fail(f"{option.opts[0]} is given {times} times, and takes one value")
        return super().parse_args(ctx, args)

    def _sets(self) -> bool:
        """Whether the command takes settings."""
        return any("--set" in parameter.opts for parameter in self.params)


def _meant(name: str) -> str | None:
    """What is written here in place of an option that is called so elsewhere."""
    own = [setting for setting in setting_names() if setting.rpartition(".")[2] == name]
    here = own[0] if own else names_elsewhere()["settings"].get(name)
    return f"here it is --set {here}=…" if here else names_elsewhere()["instead"].get(name)

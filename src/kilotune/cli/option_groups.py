"""Options that go together: a dataclass, which commands take as one parameter."""

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import wraps
from inspect import Parameter, signature
from typing import Annotated, Any, get_args, get_origin


class Only:
    """In `Annotated[Group, Only("a", "b")]`: which fields of a group a command has as options."""

    def __init__(self, *names: str) -> None:
        self.names = names


def expanded(command: Callable[..., None]) -> Callable[..., None]:
    """`command` for Typer, which makes options of parameters and knows no dataclasses.

    A parameter that is a dataclass (keyword-only, so that options with a default may stand before
    it) is replaced by its fields. A field's annotation and default are those of its option; where
    `Only` leaves a field out, it keeps its default. Raises ValueError where two options come out
    under one name, and where `Only` names one that there is not.
    """
    shape = signature(command)
    parameters: list[Parameter] = []
    groups: dict[str, tuple[Any, list[str]]] = {}
    for parameter in shape.parameters.values():
        group, *marks = _parts(parameter.annotation)
        if not is_dataclass(group):
            parameters.append(parameter)
            continue
        unknown = {n for only in marks for n in only.names} - {f.name for f in fields(group)}
        if unknown:
            raise ValueError(f"{parameter.name} has no options {', '.join(sorted(unknown))}")
        chosen = [
            parameter.replace(name=field.name, default=field.default, annotation=field.type)
            for field in fields(group)
            if all(field.name in only.names for only in marks)
        ]
        parameters += chosen
        groups[parameter.name] = group, [option.name for option in chosen]

    @wraps(command)
    def called(**given: Any) -> None:
        for name, (group, names) in groups.items():
            given[name] = group(**{field: given.pop(field) for field in names})
        command(**given)

    # What Typer reads: the order from the one, the types from the other.
    called.__signature__ = shape.replace(parameters=parameters)  # type: ignore[attr-defined]
    called.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return called


def _parts(annotation: Any) -> tuple[Any, ...]:
    """A type, and behind it what `Annotated` says of it."""
    return get_args(annotation) if get_origin(annotation) is Annotated else (annotation,)

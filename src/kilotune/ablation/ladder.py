"""The rungs of an ablation: which values a factor is tried at, and which factor comes first."""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from kilotune.errors import KilotuneError
from kilotune.evaluation.verdict import Name
from kilotune.recipe.difference import SettingChange, differences, effects_of
from kilotune.recipe.problems import problems
from kilotune.recipe.schema import LoraSettings, Recipe
from kilotune.rendering.spelling import WORDINGS, spelling
from kilotune.runs.trials import Facts, heeded

# Wordings for closed labels, beside the recipe's own: bare, and with the labels as a question.
QUESTIONS = ("{text}", "{text}\n\nWhich label fits?")
CLASSIC_DECODING = {"temperature": 0.7, "top_k": 50, "top_p": 0.9}
GREEDY = {"temperature": 0.0, "top_k": 0, "top_p": 1.0}


@dataclass(frozen=True, slots=True)
class Variant:
    """A recipe that differs from another in one factor alone, and how it differs."""

    label: str
    recipe: Recipe
    changes: Mapping[str, SettingChange]
    simpler: bool


Values = Callable[[Recipe, Facts], Sequence[Any]]


def _layers(recipe: Recipe, facts: Facts) -> Sequence[Any]:
    return ["all", *(f"top:{k}" for k in (4, 8, 16) if k < facts.layers)]


def _targets(recipe: Recipe, facts: Facts) -> Sequence[Any]:
    groups = (["q_proj", "v_proj"], ["q_proj", "k_proj", "v_proj", "o_proj"])
    return ["all-linear", *(g for g in groups if set(g) <= set(facts.linear))]


def _operations(recipe: Recipe, facts: Facts) -> Sequence[Any]:
    return [[], ["delete"], ["swap"], ["delete", "swap"]]


def _questions(recipe: Recipe, facts: Facts) -> Sequence[Any]:
    return QUESTIONS if facts.task == "classify" else ()


def _label_wordings(recipe: Recipe, facts: Facts) -> Sequence[Any]:
    """Those by which any label is called otherwise than by the others and by the recipe's own."""
    if not facts.labels:
        return ()
    known = [spelling(recipe.data.label_wording, facts.labels)]
    found: list[Any] = []
    for name in WORDINGS:
        try:
            called = spelling(name, facts.labels)
        except KilotuneError:  # two labels would be one
            continue
        if called not in known:
            known.append(called)
            found.append(name)
    return found


def _cleanings(recipe: Recipe, facts: Facts) -> Sequence[Any]:
    each = [[name] for name in facts.cleanings]
    return [[], *each, *([list(facts.cleanings)] if len(each) > 1 else [])]


# The classic values of the small-data advice are among them: rates of 5e-6 and 1e-5, rank 4 and 8,
# epochs 2 and 3, batches of 8 and 16.
LADDER: dict[str, Values] = {
    "tune.learning_rate": lambda r, f: (5e-6, 1e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3),
    "tune.epochs": lambda r, f: (1, 2, 3, 5),
    "tune.rank": lambda r, f: (4, 8, 16, 32),
    "tune.lora_alpha": lambda r, f: (8, 16, 32),
    "tune.layers": _layers,
    "tune.target_modules": _targets,
    "tune.batch_size": lambda r, f: (4, 8, 16),
    "tune.lora_dropout": lambda r, f: (0.0, 0.05, 0.1),
    "tune.weight_decay": lambda r, f: (0.0, 0.01, 0.1),
    "augment.operations": _operations,
    "decoding": lambda r, f: (GREEDY, CLASSIC_DECODING),
    "data.question": _questions,
    "data.label_wording": _label_wordings,
    "data.clean": _cleanings,
}

# Which factors come first, by what the best recipe so far suffers from; the others follow in the
# order of the ladder.
FIRST: dict[Name, tuple[str, ...]] = {
    "underfit": (
        "tune.learning_rate", "tune.epochs", "tune.target_modules", "tune.rank", "tune.lora_alpha",
        "tune.batch_size",
    ),
    "overfit": (
        "tune.epochs", "tune.lora_dropout", "tune.layers", "augment.operations", "tune.rank",
        "tune.weight_decay",
    ),
    "unstable": ("tune.learning_rate", "tune.batch_size", "tune.lora_alpha"),
    "no_signal": (
        "data.question", "data.label_wording", "tune.learning_rate", "decoding", "data.clean",
        "tune.epochs",
    ),
}  # fmt: skip

LESS: dict[str, Callable[[Any], float]] = {
    "tune.epochs": float,
    "tune.rank": float,
    "tune.layers": lambda v: _many(v) if isinstance(v, str) else float(len(v)),
    "tune.target_modules": lambda v: 1e9 if v == "all-linear" else float(len(v)),
    "augment.operations": len,
    "tune.lora_dropout": bool,
    "tune.weight_decay": bool,
    "decoding.temperature": bool,
}


def _many(layers: str) -> float:
    return math.inf if layers == "all" else float(layers.removeprefix("top:"))


def order(factors: Sequence[str], verdict: Name) -> list[str]:
    """The factors that are still to be tried, the likeliest to help first."""
    first = [name for name in FIRST.get(verdict, ()) if name in factors]
    return [*first, *(name for name in factors if name not in first)]


def factors_of(
    recipe: Recipe, facts: Facts, own: Mapping[str, Sequence[Any]], only: Sequence[str] = ()
) -> list[str]:
    """The factors that have something to try: `only` these, else the `own`, else the ladder."""
    return [name for name in only or own or LADDER if variants(recipe, name, facts, own)]


def check_factors(own: Mapping[str, Sequence[Any]], only: Sequence[str]) -> None:
    """Raise KilotuneError for a factor without values, and for one that trials do not depend on."""
    for name in only or own:
        if name not in own and name not in LADDER:
            raise KilotuneError(
                f"no values are known for '{name}'",
                where="ablation.only",
                fix=f"Choose among {', '.join(LADDER)}; or give values in ablation.factors",
            )
        if not effects_of(name):
            raise KilotuneError(
                f"there is no setting '{name}'",
                where="ablation.factors",
                fix="docs/recipe.md lists all settings",
            )
        if not heeded(name):
            raise KilotuneError(
                f"another '{name}' makes no other trial",
                where="ablation.factors",
                fix="Start an ablation with each value, and compare their final runs",
            )


def variants(
    best: Recipe, factor: str, facts: Facts, own: Mapping[str, Sequence[Any]]
) -> list[Variant]:
    """The recipes that differ from `best` in `factor` alone; what is as in `best` is left out.

    Values of the ladder that the recipe cannot have are left out too, as batches of 4 are beside a
    micro-batch of 8; raises KilotuneError for such a one of the user's `own`.
    """
    made: list[Variant] = []
    if factor in own:
        made = [_variant(best, factor, value) for value in own[factor]]
    elif _settable(best, factor):
        for value in LADDER[factor](best, facts):
            with suppress(KilotuneError):
                made.append(_variant(best, factor, value))
    different: list[Variant] = []
    for each in made:
        if each.changes and all(each.recipe != known.recipe for known in different):
            different.append(each)
    return different


def combined(best: Recipe, choice: Mapping[str, Any]) -> Recipe:
    """`best` with several factors set at once. Raises KilotuneError for values it cannot have."""
    for factor, value in choice.items():
        best = _with(best, factor, value)
    return best


def _variant(best: Recipe, factor: str, value: Any) -> Variant:
    recipe = _with(best, factor, value)
    changes = differences(best, recipe)
    check_one_factor(changes, factor)
    simpler = [LESS[n](c.after) < LESS[n](c.before) for n, c in changes.items() if n in LESS]
    return Variant(label_of(value), recipe, changes, simpler=bool(simpler) and all(simpler))


def check_one_factor(changes: Mapping[str, SettingChange], factor: str) -> None:
    """Raise KilotuneError where anything but `factor` is changed."""
    if others := [n for n in changes if n != factor and not n.startswith(f"{factor}.")]:
        raise KilotuneError(
            f"a change of {factor} changes {', '.join(others)} too",
            where=factor,
            fix="Give it as a factor of its own",
        )


def label_of(value: Any) -> str:
    """A value as it is shown."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {label_of(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(label_of, value)) or "none"
    if isinstance(value, float):
        return f"{value:g}"
    return repr(value) if isinstance(value, str) and ("{" in value or " " in value) else str(value)


def _settable(recipe: Recipe, factor: str) -> bool:
    """Whether the recipe's method has such a setting."""
    if factor in ("tune.rank", "tune.lora_alpha", "tune.lora_dropout", "tune.target_modules"):
        return isinstance(recipe.tune, LoraSettings)
    part, _, name = factor.partition(".")
    return not name or hasattr(getattr(recipe, part), name)


def _with(recipe: Recipe, factor: str, value: Any) -> Recipe:
    tree = recipe.model_dump(mode="json")
    *parts, last = factor.split(".")
    place = tree
    for part in parts:
        place = place.get(part) if isinstance(place, dict) else None  # type: ignore[assignment]
        if not isinstance(place, dict):
            raise KilotuneError(
                "no such setting", where=f"ablation.factors.{factor}", fix="See docs/recipe.md"
            )
    merged = isinstance(value, Mapping) and isinstance(place.get(last), dict)
    place[last] = {**place[last], **value} if merged else value
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        said = "; ".join(f"{name}: {words}" for name, words in problems(error).items())
        raise KilotuneError(
            said, where=f"ablation.factors.{factor}", fix="Give a value that a recipe may have"
        ) from error

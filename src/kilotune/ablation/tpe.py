"""`search: optuna`: several factors at once, suggested by TPE, judged as an ablation judges."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from kilotune.ablation.coordinate_search import (
    Ablation,
    BudgetSpentError,
    Question,
    Run,
    choose,
    decide_rung,
    gain,
    look_at,
    mean_by_example,
    stages,
    tried,
)
from kilotune.ablation.ladder import Variant, combined, factors_of, variants
from kilotune.evaluation.evidence import Figure
from kilotune.recipe.difference import differences
from kilotune.recipe.schema import Recipe
from kilotune.runs.outcomes import Rung
from kilotune.runs.trials import Trial
from kilotune.system.extras import extra

AS_BEFORE = "as before"


def search(
    base: Recipe,
    question: Question,
    run: Run,
    changed: Callable[[Ablation], None],
    *,
    candidates: int,
    seed: int,
) -> Ablation:
    """Try up to `candidates` recipes that TPE suggests, and adopt one or none.

    (Bergstra et al. 2011.) The suggestions follow from `seed` and the trials' scores, so that a
    search which was stopped comes to the same ones again. Raises KilotuneError without optuna.
    """
    optuna = _optuna()
    space = {
        name: {AS_BEFORE: base, **{v.label: v for v in found}}
        for name in factors_of(base, question.facts, question.factors, question.only)
        if (found := variants(base, name, question.facts, question.factors))
    }
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    state, ended = Ablation(base), f"{candidates} suggestions were tried"
    made: dict[str, Variant] = {}
    given: dict[str, list[Trial]] = {}
    dropped: dict[str, str] = {}
    before: list[Trial] = []
    try:
        verdict, figure = look_at(base, question, run)
        state = replace(state, verdict=verdict, out_of_fold=figure)
        before = run([(base, unit) for unit in question.units])
        study.add_trial(_known(optuna, space, before))
        for _ in range(candidates):
            suggestion = study.ask()
            labels = {n: suggestion.suggest_categorical(n, list(v)) for n, v in space.items()}
            variant = _variant(base, space, labels)
            if variant.changes and variant.label not in made:
                made[variant.label] = variant
                given[variant.label] = []
                _try(variant, before, given[variant.label], dropped, question, run)
            done = given.get(variant.label) or before
            study.tell(suggestion, _score(done))
            changed(state)
    except BudgetSpentError as spent:
        state, ended = replace(state, spent=True), str(spent)
    finished = {n: v for n, v in made.items() if n in dropped or _complete(given[n], question)}
    if finished:
        decided = decide_rung(before, list(finished.values()), given, dropped, len(question.units))
        chosen = choose([v for n, v in finished.items() if n in decided], decided, given)
        rows = tuple(tried(v, before, given, dropped, decided, chosen) for v in finished.values())
        name = state.verdict.name if state.verdict else ""
        rung = Rung("optuna", AS_BEFORE, name, rows, chosen.label if chosen else None)
        state = replace(state, rungs=(rung,))
        if chosen:
            verdict, figure = look_at(chosen.recipe, question, run)
            state = replace(state, best=chosen.recipe, verdict=verdict, out_of_fold=figure)
    state = replace(state, ended=ended)
    changed(state)
    return state


def _try(
    variant: Variant,
    before: list[Trial],
    done: list[Trial],
    dropped: dict[str, str],
    question: Question,
    run: Run,
) -> None:
    """Its trials, until all are done or it is surely worse."""
    for end in stages(len(question.units)):
        done += run([(variant.recipe, unit) for unit in question.units[len(done) : end]])
        found = gain(before[:end], done)
        if end < len(question.units) and isinstance(found, Figure) and found.high < 0:
            dropped[variant.label] = f"surely worse after {end} trial{'s' if end > 1 else ''}"
            return


def _variant(base: Recipe, space: dict[str, dict[str, Any]], labels: dict[str, str]) -> Variant:
    chosen = {name: label for name, label in labels.items() if label != AS_BEFORE}
    recipe, simpler = base, []
    for name, label in chosen.items():
        variant: Variant = space[name][label]
        recipe = combined(recipe, {n: c.after for n, c in variant.changes.items()})
        simpler.append(variant.simpler)
    label = "; ".join(f"{name} {value}" for name, value in chosen.items())
    return Variant(label, recipe, differences(base, recipe), bool(simpler) and all(simpler))


def _known(optuna: Any, space: dict[str, dict[str, Any]], before: list[Trial]) -> Any:
    """The base recipe, as what a study has tried already."""
    distributions = {
        name: optuna.distributions.CategoricalDistribution(list(values))
        for name, values in space.items()
    }
    return optuna.trial.create_trial(
        params=dict.fromkeys(space, AS_BEFORE), distributions=distributions, value=_score(before)
    )


def _score(trials: list[Trial]) -> float:
    values = mean_by_example(trials).values()
    return sum(values) / len(values)


def _complete(trials: list[Trial], question: Question) -> bool:
    return len(trials) == len(question.units)


def _optuna() -> Any:
    fix = "pip install 'kilotune[search]', or set ablation.search=ladder"
    optuna = extra("optuna", where="ablation.search", fix=fix)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna

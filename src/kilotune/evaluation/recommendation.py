"""What to do with a task before tuning on it: rules over what simple systems make of it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from kilotune.evaluation.evidence import Figure
from kilotune.evaluation.learning_curve import LearningCurve
from kilotune.evaluation.survey import Survey
from kilotune.evaluation.task_metrics import TITLES
from kilotune.messages.sentences import Phrase, phrase, say

Code = Literal[
    "repair", "no-signal", "label-more", "bag-of-words", "encoder", "states", "prompt", "tune",
    "enough-labels", "curve-unsure",
]  # fmt: skip

# Shares of examples with a contradicting twin, and with a repeated text, that cost more than any
# choice of a system gains.
CONFLICTING, REPEATED = 0.05, 0.2
# Where a model is surest so many labels are others, and no fewer than elsewhere: wrong ones, rather
# than hard texts.
SUSPECT = 0.1
# A label of fewer examples is learnt badly, and judged not at all.
RARE = 8
# What a system must reach of the best one: not surely worse, nor by more than this as measured.
CLOSE = 0.03
# Above this there is little left to tune for, below the other nothing simple is good.
GOOD, POOR = 0.9, 0.8
# A gain that labels are worth giving for, and one that it would take to ask for more all the same.
WORTH, LITTLE = 0.01, 0.04

# From what costs least in use to what costs most, and what is advised where it is enough.
CHEAPEST: dict[str, Code] = {
    "tfidf": "bag-of-words", "encoder": "encoder", "base": "prompt", "states": "states",
    "few_shot": "prompt",
}  # fmt: skip
# What the language model knows already.
PRETRAINED = ("base", "states", "few_shot")
LEAKS = ("leakage", "near-leakage", "group-leakage")
# Advice of data that are found wanting.
WANTING: frozenset[Code] = frozenset({"repair", "no-signal"})


@dataclass(frozen=True, slots=True)
class Advice:
    """One thing to do: what is advised, and why, with the figures behind it."""

    code: Code
    said: Phrase

    def __str__(self) -> str:
        return say(self.said)

    def with_sentences(self) -> dict[str, Any]:
        """Its code and values, with the sentence."""
        values = {name: value for name, value in self.said.items() if name != "phrase"}
        return {"code": self.code, "message": str(self), "values": values}


def recommend(survey: Survey) -> tuple[Advice, ...]:
    """Advice on a task, the most important first.

    Where there is nothing to be learnt, or much to repair, no system is advised.
    """
    repairs = tuple(_repairs(survey))
    if survey.task != "classify":
        return (*repairs, *_open(survey))
    asked = [name for name in survey.answers if name != "majority"]
    if asked and not any(map(survey.informed, asked)):
        return (*repairs, *_no_signal(survey))
    return (*repairs, *_rare(survey), *_closed(survey))


def wanting(advice: tuple[Advice, ...]) -> bool:
    """Whether something of the data is found wanting."""
    return any(one.code in WANTING for one in advice)


def _advice(code: Code, name: str, **values: Any) -> Advice:
    return Advice(code, phrase(f"advise-{name}", **values))


def _repairs(survey: Survey) -> Iterator[Advice]:
    """What of the data would spoil any system, or its figures."""
    total = len(survey.truth)
    rows = {finding.code: set(finding.rows) & set(survey.truth) for finding in survey.findings}
    conflicting = len(rows.get("conflicting-labels", ()))
    if survey.task == "classify" and conflicting >= CONFLICTING * total:
        yield _advice("repair", "conflicts", rows=conflicting, examples=total,
                      share=conflicting / total)  # fmt: skip
    for found in survey.findings:
        if found.code in LEAKS:
            where = {name: found.values[name] for name in ("part", "source")}
            yield _advice("repair", "leakage", rows=len(found.rows), **where)
    repeated = len(rows.get("duplicate", set()) | rows.get("near-duplicate", set()))
    if repeated >= REPEATED * total:
        yield _advice("repair", "repeats", rows=repeated, examples=total, share=repeated / total)
    for name, against in survey.contradicted.items():
        if against.alike and against.surest.low > SUSPECT:
            yield _advice("repair", "suspect-labels", system=_system(survey, name),
                          surest=_interval(against.surest),
                          others=_interval(against.others))  # fmt: skip


def _no_signal(survey: Survey) -> Iterator[Advice]:
    asked = [one for one in survey.systems() if one.name != "majority"]
    metric = next(iter(asked[0].figures))
    best = max(asked, key=lambda one: one.figures[metric].value or 0.0)
    commonest = max(survey.counts.values()) / len(survey.truth)
    yield _advice(
        "no-signal", "no-signal", best=_system(survey, best.name), metric=TITLES[metric],
        figure=_interval(best.figures[metric]), commonest=commonest, examples=best.examples,
    )  # fmt: skip


def _rare(survey: Survey) -> Iterator[Advice]:
    rare = {label: count for label, count in survey.counts.items() if count < RARE}
    if rare:
        named = [phrase("class", label=label, examples=count) for label, count in rare.items()]
        lacking = sum(RARE - count for count in rare.values())
        yield _advice("label-more", "rare-labels", named=named, least=RARE,
                      lacking=lacking)  # fmt: skip


def _closed(survey: Survey) -> Iterator[Advice]:
    """Which system is enough, whether to tune, and what more labels would bring."""
    values = _values(survey)
    if not values:
        return
    best = max(values, key=values.__getitem__)
    enough = next(
        name for name in CHEAPEST if name in values and _as_good(survey, values, name, best)
    )
    yield _enough(survey, enough, best)
    yield from _tuning(survey, values, best)
    yield from _labels(survey, enough)


def _open(survey: Survey) -> Iterator[Advice]:
    """Free answers are what tuning is for; unless the base model gives them already.

    What copying gains by more labels says nothing of what tuning would.
    """
    values = _values(survey)
    prompted = [name for name in ("base", "few_shot") if name in values]
    good = next((name for name in prompted if values[name] >= GOOD), None)
    if good:
        yield _enough(survey, good, good)
    else:
        figures = [_scored(survey, name) for name in values]
        yield _advice("tune", "tune-open", figures=figures or [phrase("nothing-asked")])


def _values(survey: Survey) -> dict[str, float]:
    """The systems' figures that they are compared by, as far as there are any."""
    systems = [one for one in survey.systems() if one.name in CHEAPEST]
    found = {one.name: one.figures[survey.metric].value for one in systems}
    return {name: value for name, value in found.items() if value is not None}


def _as_good(survey: Survey, values: Mapping[str, float], name: str, best: str) -> bool:
    """Whether a system is not surely worse than the best, nor by much as measured.

    That is on the examples that both were asked, and by all that each was asked: what a sample of
    a hundred leaves open, the others may tell.
    """
    if name == best:
        return True
    gain = survey.gain(name, best)
    near = values[best] - values[name] < CLOSE
    return near and isinstance(gain, Figure) and gain.low <= 0 and gain.value < CLOSE


def _enough(survey: Survey, name: str, best: str) -> Advice:
    code, said = CHEAPEST[name], _scored(survey, name)
    use = phrase(f"advise-use-{name}")
    if name == best:
        return _advice(code, "best", system=_system(survey, name), scored=said, use=use)
    gain = survey.gain(name, best)
    assert isinstance(gain, Figure)
    return _advice(code, "as-good", system=_system(survey, name), scored=said, use=use,
                   best=_scored(survey, best), gain=_points(gain))  # fmt: skip


def _tuning(survey: Survey, values: dict[str, float], best: str) -> Iterator[Advice]:
    """Whether what the language model knows already is worth building on."""
    if values[best] >= GOOD:
        return
    known = [name for name in PRETRAINED if name in values]
    if not known:
        if values[best] < POOR:
            yield _advice("tune", "tune-untried", scored=_scored(survey, best), poor=POOR)
        return
    own = max(known, key=values.__getitem__)
    if not _as_good(survey, values, own, best):
        return
    gain = survey.gain("tfidf", own) if "tfidf" in values else None
    if isinstance(gain, Figure) and gain.low > 0:
        yield _advice("tune", "tune-knows", scored=_scored(survey, own), gain=_points(gain))
    elif values[best] < POOR:
        yield _advice("tune", "tune-poor", scored=_scored(survey, best), poor=POOR)


def _labels(survey: Survey, name: str) -> Iterator[Advice]:
    """What more labels would bring the system `name`, or else the best that learns."""
    curve = survey.curves.get(name) or max(
        survey.curves.values(), key=lambda one: one.points[-1].figure.value, default=None
    )
    if curve is None:
        return
    gain, values = curve.doubled, _curve_values(survey, curve)
    if gain.low > 0 and gain.value >= WORTH:
        prices = [_price(one.gain, one.rows, one.low, one.high) for one in curve.prices]
        more = phrase("advise-prices", prices=prices) if prices else ""
        yield _advice("label-more", "more-labels", **values, prices=more)
    elif gain.value < WORTH and gain.high < LITTLE:
        yield _advice("enough-labels", "enough-labels", **values)
    else:
        yield _advice("curve-unsure", "curve-unsure", **values)


def _curve_values(survey: Survey, curve: LearningCurve) -> dict[str, Any]:
    first, last = curve.points[0], curve.points[-1]
    return {
        "system": _system(survey, curve.system), "metric": TITLES[curve.metric],
        "few": first.rows, "low": first.figure.value,
        "many": last.rows, "high": last.figure.value,
        "rows": curve.rows, "doubled": 2 * curve.rows, "gain": _points(curve.doubled),
    }  # fmt: skip


def _price(gain: float, rows: int, low: int, high: int | None) -> Phrase:
    name = "price" if high is not None else "price-open"
    return phrase(name, points=100 * gain, rows=rows, low=low, high=high)


def _scored(survey: Survey, name: str) -> Phrase:
    """A system with its figure, and on how many examples, as part of a sentence."""
    one = survey.system(name)
    figure = one.figures[survey.metric]
    assert isinstance(figure, Figure)
    return phrase("advise-scored", system=_system(survey, name), metric=TITLES[survey.metric],
                  figure=_interval(figure), examples=one.examples)  # fmt: skip


def _system(survey: Survey, name: str) -> Phrase:
    closed = survey.task == "classify" or name not in ("majority", "tfidf")
    return phrase(f"advise-{name}{'' if closed else '-open'}")


def _interval(figure: Any) -> Phrase:
    return phrase("interval", value=figure.value, low=figure.low, high=figure.high)


def _points(gain: Figure) -> Phrase:
    """A difference in points."""
    return phrase("points", value=100 * gain.value, low=100 * gain.low, high=100 * gain.high)

from typing import Any

import pytest

from kilotune.evaluation.evidence import Figure, Unavailable, wilson
from kilotune.evaluation.judgement import judge_system
from kilotune.evaluation.label_errors import Contradicted
from kilotune.evaluation.next_steps import NEXT_STEPS
from kilotune.evaluation.verdict import Observed, Verdict, decide, remarks_on
from kilotune.messages.sentences import say
from kilotune.recipe.load import load_recipe
from kilotune.recipe.schema import Recipe

FALLING = [2.0, 2.0, 1.0, 1.0, 0.5, 0.5, 0.3, 0.3, 0.2, 0.2, 0.1, 0.1]


def against(surest: int, others: int) -> Contradicted:
    return Contradicted(wilson(surest, 100), wilson(others, 100))


def verdict(
    train: tuple[int, int],
    validation: tuple[int, int],
    losses: list[float] = FALLING,
    validation_losses: list[float] = FALLING,
    preset: str = "auto",
    metric: str = "accuracy",
    **others: Any,
) -> Verdict:
    gain = validation[0] / validation[1] - 0.5  # against a floor of a half
    over = Figure(gain, gain - 0.1, gain + 0.1)
    seen = Observed(
        metric=metric,
        train=wilson(*train),
        validation=wilson(*validation),
        losses=losses,
        validation_losses=validation_losses,
        **{"gain": over, "over_base": over, **others},
    )
    return decide(plain(preset), seen)


def plain(preset: str = "auto", *overrides: str) -> Recipe:
    """A recipe whose epochs and rate are settled, as those of a run are."""
    rate = ["tune.learning_rate=5e-4"] if preset == "auto" else []
    settled = ["tune.epochs=3", *rate, *overrides]
    return load_recipe(preset=preset, settings={"data": {"train": "x.csv"}}, overrides=settled)


def doubt(found: Verdict) -> str:
    assert found.doubt is not None
    return say(found.doubt)


@pytest.mark.parametrize(
    ("train", "validation", "losses", "validation_losses", "name"),
    [
        ((98, 100), (54, 60), FALLING, [0.5, 0.3], "healthy"),
        ((60, 100), (35, 60), FALLING, [0.5, 0.3], "underfit"),
        ((200, 200), (76, 120), FALLING, [0.5, 0.3, 0.4], "overfit"),
        # A loss that rises while answers do not get worse is confidence.
        ((100, 100), (45, 60), FALLING, [0.5, 0.3, 0.4], "healthy"),
        # The same gap while validation was still gaining is no harm done.
        ((100, 100), (45, 60), FALLING, [0.5, 0.3, 0.31], "healthy"),
        ((99, 100), (33, 60), FALLING, [0.5, 0.6], "no_signal"),
        ((50, 100), (30, 60), [1.0, 2.0, 9.0], [0.5], "unstable"),
        ((50, 100), (30, 60), [1.0, float("nan"), 0.5], [0.5], "unstable"),
    ],
)
def test_rules(
    train: tuple[int, int],
    validation: tuple[int, int],
    losses: list[float],
    validation_losses: list[float],
    name: str,
) -> None:
    assert verdict(train, validation, losses, validation_losses).name == name


def test_answers_that_got_worse_are_overfitting_at_any_gap() -> None:
    risen = ((100, 100), (45, 60), FALLING, [0.5, 0.3, 0.4])
    assert verdict(*risen, worsened=True).name == "overfit"
    harmless = verdict(*risen, worsened=False)
    assert harmless.name == "healthy"
    assert "answers to validation did not get worse" in harmless.summary
    assert verdict(*risen, metric="token_f1").name == "overfit"  # its loss is all there is


@pytest.mark.parametrize(
    ("others", "name"),
    [
        # Loss that spikes but comes back, gradients that grow or are no numbers.
        ({"losses": [2.0, 1.9, 1.5, 9.0, 7.0, 0.5] * 2}, "unstable"),
        ({"losses": [2.0, 1.9, 1.5, 4.0, 0.3, 0.2] * 20}, "unstable"),
        ({"losses": [2.0, 1.9, 1.5, 4.0, 0.3, 0.2]}, "healthy"),  # a single hard batch
        # A fall within the first tenth of a long run is no spike.
        ({"losses": [5.5, 5.0, 4.0, 3.0, 1.0, 0.5, 0.2, 0.1] + [0.1] * 72}, "healthy"),
        ({"gradients": [1.0] * 10 + [50.0] * 10}, "unstable"),
        ({"gradients": [1.0] * 19 + [float("inf")]}, "unstable"),
        ({"gradients": [4.0, 2.0, 1.0, 3.0]}, "healthy"),
        ({"unended": 0.8}, "template_fault"),
        ({"unread": 0.8}, "template_fault"),
        # What was not learnt may well be unreadable.
        ({"unread": 0.8, "losses": [2.0, 1.9, 1.8], "train": (20, 100)}, "underfit"),
        ({"conflicting": 0.4}, "healthy"),
        ({"conflicting": 0.4, "train": (60, 100)}, "data_fault"),
        ({"conflicting": 0.05, "train": (60, 100)}, "underfit"),
        # Too large steps: a climb on the way, or gradients that died while the loss stayed. A run
        # that came out well had no harm of them.
        ({"losses": [5.0, 3.0, 1.0, 1.0, 1.0, 3.0, 3.0, 3.0, 1.0], "train": (60, 100)}, "unstable"),
        ({"losses": [5.0, 3.0, 1.0, 1.0, 1.0, 3.0, 3.0, 3.0, 0.1], "unread": 0.9}, "unstable"),
        ({"losses": [5.0, 3.0, 1.0, 1.0, 1.0, 3.0, 3.0, 3.0, 1.0]}, "healthy"),
        ({"losses": [2.0] * 20, "gradients": [1.0, *[0.01] * 19], "train": (9, 99)}, "unstable"),
        ({"losses": [2.0] * 20, "gradients": [1.0] * 20, "train": (9, 99)}, "underfit"),
        # A loss of 1.5 nats a token has not learnt what it would have to say.
        ({"unread": 0.8, "losses": [5.0, 4.0, 3.0, 2.0, 1.5], "train": (20, 100)}, "underfit"),
        # The labels go against the model where it is surest, as often as elsewhere.
        ({"contradicted": against(20, 21), "train": (80, 100)}, "data_fault"),
        ({"contradicted": against(20, 21)}, "healthy"),
        ({"contradicted": against(3, 38), "train": (80, 100)}, "underfit"),
        ({"contradicted": against(14, 38), "train": (80, 100)}, "underfit"),
        (
            {"contradicted": against(48, 52), "train": (52, 100), "validation": (31, 60)},
            "underfit",  # it has learnt nothing that could be contradicted
        ),
        # Surely above the commonest label, and not above the base model.
        ({"over_base": Figure(-0.01, -0.1, 0.1)}, "no_signal"),
        ({"validation": Unavailable("few")}, "unavailable"),
        ({"validation": Unavailable("few"), "losses": [1.0, 9.0, 9.0]}, "unstable"),
    ],
)
def test_faults_that_figures_alone_do_not_show(others: dict[str, Any], name: str) -> None:
    losses = others.pop("losses", FALLING)
    train, validation = others.pop("train", (98, 100)), others.pop("validation", (54, 60))
    if isinstance(validation, Unavailable):
        others["gain"] = validation
        validation = (54, 60)
    assert verdict(train, validation, losses, [0.5, 0.3], **others).name == name


def test_each_fault_says_its_figures() -> None:
    template = verdict((98, 100), (54, 60), unended=0.9, unread=0.6).summary
    assert "but of the generated answers 90% do not end by themselves and 60% cannot be" in template
    data = verdict((60, 100), (35, 60), conflicting=0.4).summary
    assert "40% of the examples have a text that stands there with another label too" in data
    said = verdict((80, 100), (54, 60), contradicted=against(20, 21))
    assert "where the tuned model is surest, 20% of the labels are others" in said.summary
    assert (said.confidence, doubt(said)) == (
        "likely",
        "labels that the texts leave open look like wrong ones",
    )
    half = verdict((80, 100), (54, 60), contradicted=against(20, 40))
    assert (half.name, half.confidence) == ("underfit", "likely")
    assert doubt(half).startswith("where the tuned model is surest, 20% of the labels are others")
    climbed = [5.0, 3.0, 1.0, 1.0, 1.0, 3.0, 3.0, 3.0, 1.0]
    strayed = verdict((60, 100), (35, 60), climbed).summary
    assert strayed.endswith("went from 5 to 1, and climbed on the way by 67% of that")
    dead = verdict((9, 99), (9, 60), [2.0] * 20, gradients=[1.0, 1.0, *[0.01] * 18]).summary
    assert dead.endswith("and its gradients fell to 1.0% of their size")
    grown = verdict((98, 100), (54, 60), gradients=[1.0] * 10 + [50.0] * 10).summary
    assert grown.endswith("its gradients grew to 50 times their size")
    spikes = verdict((98, 100), (54, 60), [2.0, 1.9, 1.5, 9.0, 7.0, 0.5] * 2).summary
    assert spikes.endswith("4 steps far above where it began")
    few = verdict((98, 100), (54, 60), gain=Unavailable("2 examples; at least 6 are needed"))
    assert (few.name, few.figures.get("gain")) == ("unavailable", None)


def test_a_verdict_near_a_threshold_is_likely_and_says_what_may_tip_it() -> None:
    assert verdict((98, 100), (54, 60)).confidence == "sure"
    near = verdict((82, 100), (35, 60))
    assert (near.name, near.confidence) == ("underfit", "likely")
    assert doubt(near) == "training accuracy 0.820 [0.733, 0.883] is near 0.85"
    small = verdict((99, 100), (33, 60))
    assert (small.name, small.confidence) == ("no_signal", "likely")
    assert "validation part too small" in doubt(small)


def test_how_far_a_run_came_is_said_as_its_loss_has_it() -> None:
    moved = verdict((67, 100), (36, 60), FALLING).summary
    assert moved.endswith("and not far enough: its loss fell to 5% of where it began")
    stayed = verdict((67, 100), (36, 60), [2.0, 1.9, 1.8]).summary
    assert stayed.endswith("the training has barely moved the model")


def test_a_gain_that_is_not_shown_is_not_called_absent() -> None:
    measured = verdict((98, 100), (14, 20), gain=Figure(0.18, 0.0, 0.36))
    assert measured.name == "no_signal"
    assert measured.summary.startswith("no signal shown: 98% of the training and 70% of")
    assert measured.summary.endswith(
        "a gain of +18% over always answering the commonest label was measured, which may be "
        "chance (at least +0%): more validation examples would tell"
    )
    # The commonest label is beaten for sure, the base model is not.
    based = verdict(
        (98, 100), (54, 60), gain=Figure(0.4, 0.25, 0.55), over_base=Figure(0, -0.1, 0.1)
    )
    assert based.summary.endswith(
        "the tuned model is not above the base model on validation (gain +0%)"
    )
    assert based.doubt is None
    absent = verdict((98, 100), (31, 60), gain=Figure(-0.01, -0.03, 0.01)).summary
    assert "but validation is not surely above always answering the commonest label" in absent


def test_a_healthy_run_with_a_gap_says_so() -> None:
    assert verdict((98, 100), (54, 60)).summary.endswith("what was learnt carries over")
    gap = verdict((100, 100), (45, 60), FALLING, [0.5, 0.3]).summary
    assert "100% of the training and 75% of the validation" in gap
    assert "the gap did no harm" in gap


def test_an_underfit_article_run_is_told_to_raise_the_rate_first() -> None:
    found = verdict((60, 100), (35, 60), preset="article")
    assert found.summary.startswith("underfit: only 60% of its own training examples")
    arguments = [step.arguments for step in found.next_steps]
    assert arguments == [
        "--set tune.learning_rate=auto",
        "--set tune.target_modules=all-linear",
        "--set tune.epochs=6",
    ]


@pytest.mark.parametrize("preset", ["auto", "article", "article-top-layers"])
@pytest.mark.parametrize(
    ("case", "others"),
    [
        ((60, 35), {}),
        ((100, 45), {"worsened": True}),
        ((99, 33), {}),
        ((60, 35), {"losses": [1.0, 9.0, 9.0]}),
        ((99, 54), {"unended": 1.0}),
        ((60, 35), {"conflicting": 0.5}),
        ((60, 35), {"gain": Unavailable("few")}),
    ],
)
def test_next_steps_run_as_they_stand(
    preset: str, case: tuple[int, int], others: dict[str, Any]
) -> None:
    losses = {"losses": FALLING, **others}.pop("losses")
    others = {name: value for name, value in others.items() if name != "losses"}
    found = verdict((case[0], 100), (case[1], 60), losses, [0.3, 0.5], preset=preset, **others)
    assert found.name != "healthy"
    assert 0 < len(found.next_steps) <= 3
    for step in found.next_steps:
        flag, override = step.arguments.split(" ")
        assert flag == "--set"
        assert plain(preset, override) != plain(preset)


@pytest.mark.parametrize("name", NEXT_STEPS)
def test_no_next_step_is_what_the_recipe_does_already(name: str) -> None:
    usual = [
        "tune.epochs=1", "data.validation_fraction=0.45", "tune.warmup_ratio=0.2",
        "tune.learning_rate=0.01", "tune.layers=top:2", "tune.lora_dropout=0.2",
    ]  # fmt: skip
    recipe = load_recipe(settings={"data": {"train": "x.csv"}}, overrides=usual)
    for step in NEXT_STEPS[name](recipe):
        override = step.arguments.removeprefix("--set ")
        changed = load_recipe(settings={"data": {"train": "x.csv"}}, overrides=[*usual, override])
        assert changed != recipe, step


def test_free_text_is_fitted_when_its_loss_fell_and_judged_by_its_own_figure() -> None:
    healthy = verdict((60, 100), (36, 60), metric="token_f1")
    assert healthy.name == "no_signal"  # 0.6 against 0.5, within its noise
    healthy = verdict((70, 100), (42, 60), metric="token_f1")
    assert healthy.summary.startswith("healthy: token F1 is 0.70 on the training and 0.70")
    unmoved = verdict((70, 100), (42, 60), [2.0, 1.9, 1.8], metric="token_f1")
    assert unmoved.name == "underfit"
    assert "training loss fell only to 90% of where it began" in unmoved.summary
    risen = verdict((70, 100), (42, 60), [1.6, 1.65, 1.7], metric="token_f1")
    assert "training loss did not fall" in risen.summary


def test_a_healthy_run_needs_no_next_step() -> None:
    assert verdict((98, 100), (54, 60)).next_steps == ()


def test_a_bag_of_words_that_wins_is_said() -> None:
    references = ["a", "b"] * 10

    def judged(name: str, right: int):  # type: ignore[no-untyped-def]
        said = references[:right] + [""] * (20 - right)
        labels = ["a", "b"]
        return judge_system(
            name, "classify", references, said, labels, settings={"samples": 50, "seed": 0}
        )

    def remarks(tuned: int, gain: Figure, **others: int) -> list[str]:
        systems = {name: judged(name, right) for name, right in others.items()}
        every = {**systems, "tuned": judged("tuned", tuned)}
        return [say(remark) for remark in remarks_on(every, dict.fromkeys(systems, gain))]

    sure, unsure = Figure(0.2, 0.1, 0.3), Figure(0.1, -0.05, 0.2)
    (better,) = remarks(15, unsure, base=5, tfidf=18)
    assert better.startswith("A bag of words (TF-IDF, logistic regression) does better than the")
    assert better.endswith(
        "0.900 against 0.750 on the held-out test. It needs no model (kilotune predict RUN FILE "
        "--with tfidf)"
    )
    # Only the best of the others is spoken of, and where the gain over it is sure none is.
    (equal,) = remarks(16, unsure, base=15, tfidf=14)
    assert equal == (
        "The base model does as well as the tuned model: accuracy 0.750 against 0.800 on the "
        "held-out test, where a gain of 0.100 [-0.050, 0.200] is not sure. It needs no tuning"
    )
    assert remarks(16, sure, base=15, tfidf=14) == []

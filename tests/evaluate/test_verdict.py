import pytest

from kilotune.evaluate.evidence import Figure, wilson
from kilotune.evaluate.judgement import judge_system
from kilotune.evaluate.verdict import Observed, Verdict, decide, remarks_on
from kilotune.recipe.load import load_recipe

FALLING = [2.0, 1.0, 0.5, 0.3, 0.2, 0.1] * 2


def verdict(
    train: tuple[int, int],
    validation: tuple[int, int],
    losses: list[float] = FALLING,
    validation_losses: list[float] = FALLING,
    preset: str = "auto",
    metric: str = "accuracy",
) -> Verdict:
    gain = validation[0] / validation[1] - 0.5  # against a floor of a half
    seen = Observed(
        metric=metric,
        train=wilson(*train),
        validation=wilson(*validation),
        floor="always answering the commonest label",
        gain=Figure(gain, gain - 0.1, gain + 0.1),
        losses=losses,
        validation_losses=validation_losses,
    )
    return decide(load_recipe(preset=preset, settings={"data": {"train": "x.csv"}}), seen)


@pytest.mark.parametrize(
    ("train", "validation", "losses", "validation_losses", "name"),
    [
        ((98, 100), (54, 60), FALLING, [0.5, 0.3], "healthy"),
        ((60, 100), (35, 60), FALLING, [0.5, 0.3], "underfit"),
        ((100, 100), (45, 60), FALLING, [0.5, 0.3, 0.4], "overfit"),
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
        "--set tune.learning_rate=0.0005",
        "--set tune.target_modules=all-linear",
        "--set tune.epochs=6",
    ]


@pytest.mark.parametrize("preset", ["auto", "article", "article-top-layers"])
@pytest.mark.parametrize("case", [(60, 35), (100, 45), (99, 33)])
def test_next_steps_run_as_they_stand(preset: str, case: tuple[int, int]) -> None:
    found = verdict((case[0], 100), (case[1], 60), FALLING, [0.3, 0.5], preset=preset)
    assert 0 < len(found.next_steps) <= 3
    for step in found.next_steps:
        flag, override = step.arguments.split(" ")
        assert flag == "--set"
        changed = load_recipe(
            preset=preset, settings={"data": {"train": "x.csv"}}, overrides=[override]
        )
        assert changed != load_recipe(preset=preset, settings={"data": {"train": "x.csv"}})


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
            name, "classify", references, said, labels, bootstrap_samples=50, seed=0
        )

    tuned, base, words = judged("tuned", 15), judged("base", 5), judged("tfidf", 18)
    (remark,) = remarks_on(tuned, base, words)
    assert remark.startswith("A bag of words")
    assert "0.900 against 0.750" in remark
    assert remarks_on(words, base, tuned) == []

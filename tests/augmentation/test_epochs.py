"""Other examples in each epoch."""

from collections.abc import Sequence

import pytest

from kilotune.augmentation.epochs import augment_epochs, rounds_of
from kilotune.augmentation.policy import WRITTEN, Augmented, augment
from kilotune.data.example import Example
from kilotune.errors import KilotuneError
from kilotune.progress import Silent
from kilotune.recipe.schema import AugmentSettings
from tests.augmentation.test_policy import films


def settings(*operations: str) -> AugmentSettings:
    return AugmentSettings.model_validate({"operations": operations})


def run(train: Sequence[Example], *operations: str, epochs: int = 3, seed: int = 0) -> Augmented:
    return augment_epochs(train, [], settings(*operations), epochs, seed=seed, progress=Silent())


def texts(made: Augmented, epoch: int) -> dict[str, str]:
    return {e.id.partition("@")[0]: e.text for e in made.examples if e.origin.epoch == epoch}


def test_each_epoch_has_others_that_depend_on_the_seed_and_its_number_alone() -> None:
    train = films(40)
    made = run(train, "swap", "delete")
    first, second, third = (texts(made, epoch) for epoch in (1, 2, 3))
    assert first.keys() == second.keys() == third.keys()
    assert len({*first.values(), *second.values(), *third.values()}) > 2 * len(first)
    fixed = augment(train, [], settings("swap", "delete"), seed=0, progress=Silent())
    assert first == {example.id: example.text for example in fixed.examples}
    # More epochs change none of the earlier ones; another seed changes all.
    assert run(train, "swap", "delete", epochs=2).examples == made.examples[: 2 * len(first)]
    assert texts(run(train, "swap", "delete", seed=1), 2) != second
    assert len({example.id for example in made.examples}) == len(made.examples) == 240
    assert made.counts["swap"].kept == 120
    assert made.epochs == 3


def now_and_then(example: Example, rng: object) -> list[Example]:
    """What filters take of it differs from one epoch to the next."""
    return [example.with_text(f"{example.text} again")] if rng.random() < 0.5 else []  # type: ignore[attr-defined]


def test_epochs_are_of_one_size_and_what_is_over_is_counted() -> None:
    name = "tests.augmentation.test_epochs:now_and_then"
    made = run(films(40), name)
    sizes = {len(texts(made, epoch)) for epoch in (1, 2, 3)}
    assert len(sizes) == 1
    [count] = made.counts.values()
    assert count.asked == 120
    assert count.kept == len(made.examples) == 3 * sizes.pop()
    assert count.made - count.kept == count.taken["uneven"] > 0


def test_every_epoch_trains_on_the_originals_and_its_own() -> None:
    train = films(4)
    assert rounds_of(train) == [[0, 1, 2, 3]]
    made = run(train, "swap", epochs=2)
    assert rounds_of((*train, *made.examples)) == [[*range(8)], [0, 1, 2, 3, 8, 9, 10, 11]]


@pytest.mark.parametrize("name", sorted(WRITTEN))
def test_what_models_make_is_refused(name: str) -> None:
    with pytest.raises(KilotuneError, match=f"too long for every epoch: {name}"):
        run(films(4), "swap", name)

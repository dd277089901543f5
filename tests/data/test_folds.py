import pytest

from kilotune.data.example import Example, Message, Origin
from kilotune.data.folds import make_folds
from kilotune.errors import KilotuneError


def examples(count: int, group: int = 1) -> list[Example]:
    return [
        Example(
            f"data:{i}", (Message("user", f"text {i} {i * 7919} {i * 104729}"),),
            Origin("x.csv", i), "abc"[i % 3 % 2], group=str(i // group),
        )
        for i in range(count)
    ]  # fmt: skip


def test_every_example_is_held_out_once_and_labels_are_spread() -> None:
    every = examples(60)
    folds = make_folds(every, 5, seed=0)
    held = [e.id for fold in folds for e in fold.validation]
    assert sorted(held) == sorted(e.id for e in every)
    for fold in folds:
        assert {e.id for e in fold.train} == {e.id for e in every} - {e.id for e in fold.validation}
        assert len(fold.validation) == 12
        assert sum(e.label == "b" for e in fold.validation) == 4


def test_groups_stay_together_and_the_same_seed_gives_the_same_folds() -> None:
    every = examples(60, group=4)
    folds = make_folds(every, 3, seed=1)
    for fold in folds:
        assert not {e.group for e in fold.train} & {e.group for e in fold.validation}
    assert make_folds(every, 3, seed=1) == folds
    assert make_folds(every, 3, seed=2) != folds


def test_more_folds_than_groups_are_refused() -> None:
    with pytest.raises(KilotuneError, match=r"12 examples of 3 groups .* into 4 folds"):
        make_folds(examples(12, group=4), 4, seed=0)

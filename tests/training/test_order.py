import random

from kilotune.training.order import LengthOrder

LENGTHS = [random.Random(number).randrange(10, 200) for number in range(103)]


def test_an_epoch_takes_every_example_once_and_epochs_differ() -> None:
    order = LengthOrder(LENGTHS, 8, seed=1)
    first = list(order)
    assert sorted(first) == list(range(103))
    assert list(LengthOrder(LENGTHS, 8, seed=1)) == first
    assert list(LengthOrder(LENGTHS, 8, seed=2)) != first
    order.set_epoch(1)
    assert sorted(order) == list(range(103))
    assert list(order) != first


def test_batches_hold_examples_of_like_length() -> None:
    def padding(order: list[int]) -> int:
        batches = [order[start : start + 8] for start in range(0, 103, 8)]
        return sum(
            max(LENGTHS[i] for i in b) * len(b) - sum(LENGTHS[i] for i in b) for b in batches
        )

    shuffled = list(range(103))
    random.Random(0).shuffle(shuffled)
    assert padding(list(LengthOrder(LENGTHS, 8, seed=0))) < 0.5 * padding(shuffled)


def test_blanks_fill_up_the_end_for_several_processes() -> None:
    order = LengthOrder(LENGTHS, 8, seed=0, multiple=8)
    assert len(order) == 104
    assert list(order)[:103] == list(LengthOrder(LENGTHS, 8, seed=0))
    assert list(order)[103:] == [103]


def test_without_a_seed_the_order_is_by_length() -> None:
    assert list(LengthOrder([5, 3, 9, 3], 2, seed=None)) == [1, 3, 0, 2]

"""What is left out of the training part: copies, contradictions, what is nearly the same."""

import pytest

from kilotune.data.cleaning import cleaned
from tests.support.made import classified

FIRST = "The council will repair the old bridge over the river before winter, an engineer said"
SECOND = "Three new trains run daily between the harbour and the airport from next Monday on"
THIRD = "A museum of clocks opens its doors in the former town hall after nine years of work"
ROWS = classified(
    (FIRST, "a"),  # 2
    (FIRST, "a"),  # 3: a copy
    (SECOND, "a"),  # 4
    (SECOND.upper(), "b"),  # 5: contradicts 4
    (THIRD, "b"),  # 6
    (f"{THIRD} again", "b"),  # 7: nearly 6
    (THIRD.lower(), "b"),  # 8: 6 in other letters
    ("Something else", "b"),  # 9
    (SECOND, "a"),  # 10: a copy of 4
)


@pytest.mark.parametrize(
    ("how", "left", "counts"),
    [
        ((), "2 3 4 5 6 7 8 9 10", {}),
        (("duplicates",), "2 4 5 6 7 8 9", {"duplicates": 2}),
        (("conflicts",), "2 3 6 7 8 9", {"conflicts": 3}),
        (("near_duplicates",), "2 4 6 9", {"near_duplicates": 5}),
        (
            ("near_duplicates", "duplicates", "conflicts"),
            "2 6 9",
            {"conflicts": 3, "duplicates": 1, "near_duplicates": 2},
        ),
    ],
)
def test_each_way_leaves_out_its_own_and_the_first_stays(
    how: tuple[str, ...], left: str, counts: dict[str, int]
) -> None:
    kept, out = cleaned(ROWS, how)
    assert [example.id.removeprefix("data:") for example in kept] == left.split()
    assert out == counts

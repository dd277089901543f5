import pytest

from kilotune.errors import KilotuneError
from kilotune.runs.query import parse_condition

RUN = {
    "val.macro_f1": 0.85, "tune.rank": 8, "tune.layers": "top:6", "verdict": "underfit",
    "seed": 0, "data.test": None, "model.trust_remote_code": False,
}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("val.macro_f1>0.8 and tune.rank=8", True),
        ("val.macro_f1 > 0.8 and tune.rank = 4", False),
        ("tune.rank==4 or tune.rank<=8", True),
        ("not tune.rank = 8", False),
        ("tune.rank != 8", False),
        ("tune.rank=4 or tune.rank=8 and seed=1", False),  # `and` binds more closely
        ("(tune.rank=4 or tune.rank=8) and seed=0", True),
        ("NOT (seed=1) AND verdict=Underfit", True),
        ("tune.layers = 'top:6'", True),
        ("tune.layers ~ TOP", True),
        ("data.test = none", True),
        ("model.trust_remote_code = false", True),
        ("seed = false", False),  # 0 is a number
        ("tune.layers > 3", False),
        ("val.accuracy < 2", False),  # what it has not got, holds for nothing
        ("val.accuracy != 2", True),
        ("tune.rank = 8.0", True),
    ],
)
def test_conditions_mean_what_they_say(text: str, holds: bool) -> None:
    assert parse_condition(text).test(RUN) is holds


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the name of a setting or figure is wanted before its end"),
        ("tune.rank", "=, !=, <, <=, >, >= or ~ is wanted before its end"),
        ("tune.rank =", "a value is wanted before its end"),
        ("tune.rank = 8 seed = 1", "an end, 'and' or 'or' is wanted before 'seed = 1'"),
        ("(seed = 1", "')' is wanted before its end"),
        ("verdict > healthy", "a number behind > is wanted before 'healthy'"),
        ("seed = 'x", "cannot read ''x'"),
        ("__import__('os').system('x') = 1", "=, !=, <, <=, >, >= or ~ is wanted before '( 'os'"),
        ("seed ! 1", "cannot read '! 1'"),
    ],
)
def test_what_cannot_be_read_is_said_and_nothing_is_evaluated(text: str, said: str) -> None:
    with pytest.raises(KilotuneError) as caught:
        parse_condition(text)
    assert said in caught.value.what
    assert "val.macro_f1 > 0.8 and tune.rank = 8" in caught.value.fix


def test_a_field_that_no_run_has_is_said_with_the_nearest() -> None:
    condition = parse_condition("tune.rnak = 8 and seed = 0")
    assert condition.fields == ("tune.rnak", "seed")
    with pytest.raises(KilotuneError, match=r"no run has 'tune\.rnak'.*Try tune\.rank"):
        condition.check_fields(RUN)

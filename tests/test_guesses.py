"""What several answers of a model come to."""

from kilotune.guesses import _commonest


def test_the_commonest_answer_is_kept_as_it_was_said() -> None:
    said = '{"name": "Ann", "age": 3}'
    read = '{"age": 3, "name": "Ann"}'
    other = '{"name":"Ann","age":3}'
    guess = _commonest([("no", ""), (said, read), (other, read), ("{}", "{}")])
    assert (guess.answer, guess.place) == (said, 0)
    assert guess.logits == (0.0, 0.0)  # two of four


def test_where_most_cannot_be_read_there_is_no_answer() -> None:
    assert _commonest([("", ""), ("", ""), ("yes", "yes")]).answer == ""

"""The race of decoding settings: on answers whose true worth is known."""

import random
from collections.abc import Callable, Sequence

from kilotune.evaluation.decoding_race import candidates, choose, title
from kilotune.recipe.schema import DecodingSettings

LIMITS = DecodingSettings(max_new_tokens=9, stop=("END",), temperature=0.9, top_k=7)
IDS = [f"data:{i}" for i in range(120)]


def worth(chances: Callable[[DecodingSettings], float]) -> Callable[..., list[float]]:
    """Answers that are right by chance: the same for the same settings, example and seed."""

    def ask(settings: DecodingSettings, ids: Sequence[str], seed: int) -> list[float]:
        chance = chances(settings)
        drawn = seed if settings.temperature else 0
        draws = [random.Random(f"{title(settings)} {i} {drawn}").random() for i in ids]
        return [float(draw < chance) for draw in draws]

    return ask


def test_all_settings_are_raced_once_and_keep_the_limits() -> None:
    found = candidates(LIMITS)
    assert len(found) == len({title(s) for s in found}) == 2 + 2 * 27
    assert {(s.max_new_tokens, s.stop) for s in found} == {(9, ("END",))}
    assert title(found[0]) == "greedy"
    assert title(found[-1]) == "temperature 1, top-k 50, repetition penalty 1.1"


def test_settings_that_are_far_better_are_chosen() -> None:
    choice = choose(
        IDS, LIMITS, worth(lambda s: 0.95 if (s.temperature, s.top_k) == (0.7, 20) else 0.4), 0
    )
    assert (choice.chosen.temperature, choice.chosen.top_k) == (0.7, 20)
    assert "against greedy decoding: surely better" in choice.reason
    assert choice.proof[title(choice.chosen)].gain.low > 0  # type: ignore[union-attr]


def test_greedy_stays_where_nothing_is_surely_better() -> None:
    chosen = [title(choose(IDS, LIMITS, worth(lambda _: 0.6), seed).chosen) for seed in range(20)]
    assert chosen.count("greedy") >= 19
    few = choose(IDS[:10], LIMITS, worth(lambda s: float(s.temperature > 0)), 0)
    assert (title(few.chosen), few.answers) == ("greedy", 0)
    assert "too few" in few.reason


def test_the_race_is_on_one_half_and_the_decision_on_the_other() -> None:
    seen: dict[str, set[str]] = {}
    ask = worth(lambda s: 0.4 + 0.2 * (s.temperature == 0.3))

    def noting(settings: DecodingSettings, ids: Sequence[str], seed: int) -> list[float]:
        seen.setdefault(title(settings), set()).update(ids)
        return ask(settings, ids, seed)

    choice = choose(IDS, LIMITS, noting, 0)
    assert (choice.raced, choice.decided) == (60, 60)
    assert [(r.examples, r.seeds, len(r.scores)) for r in choice.rounds] == [
        (6, 1, 55), (20, 1, 19), (60, 3, 7),
    ]  # fmt: skip
    raced = seen[next(iter(choice.rounds[0].scores))]
    assert not seen["greedy"] & raced
    assert len(seen["greedy"]) == 60
    assert sum(len(ids) == 120 for ids in seen.values()) == 3
    # Rounds of one seed ask for new examples alone; the last for two seeds more; then the proof.
    assert choice.answers == 55 * 6 + 19 * 14 + 7 * (40 + 2 * 60) + 60 + 3 * 3 * 60


def test_the_same_seed_chooses_the_same() -> None:
    ask = worth(lambda s: 0.5 + 0.1 * s.temperature)
    assert choose(IDS, LIMITS, ask, 3) == choose(IDS, LIMITS, ask, 3)

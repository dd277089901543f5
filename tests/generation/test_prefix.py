import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, MambaConfig

from kilotune.generation.prefix import NONE, common_prefix, obstacle, shared_prefix
from tests.support.kinds import tiny_kind

SHARED = tuple(range(10, 30))


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6), min_size=1, max_size=5))
def test_the_common_prefix_is_the_longest_that_leaves_every_prompt_a_token(
    prompts: list[list[int]],
) -> None:
    found = common_prefix(prompts)
    assert all(tuple(prompt[: len(found)]) == found for prompt in prompts)
    next_tokens = {tuple(prompt[: len(found) + 1]) for prompt in prompts}
    spare = min(len(prompt) for prompt in prompts) - len(found)
    assert spare == 1 or len(next_tokens) > 1
    assert spare >= 1


def test_no_prompts_share_nothing() -> None:
    assert common_prefix([]) == ()


def test_every_row_of_a_fresh_cache_has_read_the_prefix_and_none_wears_it_out() -> None:
    model = tiny_kind("llama")
    prompts = [[*SHARED, 5], [*SHARED, 6, 7]]
    prefix = shared_prefix(model, prompts, 2)
    assert prefix.token_ids == SHARED
    for rows in (3, 2):
        cache = prefix.cache(rows)
        assert cache.get_seq_length() == len(SHARED)
        assert cache.layers[0].keys.shape == (rows, 2, len(SHARED), 8)
        with torch.no_grad():
            model(torch.full((rows, 4), 5), cache=cache)
        assert cache.get_seq_length() == len(SHARED) + 4
    assert prefix.layers[0][0].shape == (1, 2, len(SHARED), 8)


def test_one_prompt_or_a_few_shared_tokens_are_not_worth_a_prefix() -> None:
    model = tiny_kind("llama")
    assert shared_prefix(model, [[*SHARED, 5]], 2) is NONE
    assert shared_prefix(model, [[1, 2, 3, 4], [1, 2, 3, 5]], 2) is NONE
    assert shared_prefix(model, [], 2) is NONE


def test_attention_that_cannot_go_on_from_a_shared_cache_is_named() -> None:
    assert obstacle(tiny_kind("qwen3"), 5000) == ""
    assert obstacle(tiny_kind("mistral", sliding_window=16), 16) == ""
    assert "16 tokens" in obstacle(tiny_kind("mistral", sliding_window=16), 17)
    assert "16 tokens" in obstacle(tiny_kind("gemma2", sliding_window=16), 17)


def test_recurrent_models_read_every_prompt_whole() -> None:
    config = MambaConfig(vocab_size=64, hidden_size=16, num_hidden_layers=1, state_size=4)
    model = AutoModelForCausalLM.from_config(config)
    assert obstacle(model, 10)
    assert shared_prefix(model, [[*SHARED, 5], [*SHARED, 6]], 2) is NONE

import torch

from kilotune.models.integrity import not_finite


def test_what_is_not_finite_is_named_and_what_is_only_large_is_not() -> None:
    nan, infinite = torch.ones(5, 5), torch.ones(3)
    nan[2, 3], infinite[0] = float("nan"), -float("inf")
    tensors = {
        "nan": nan,
        "across": nan.T,
        "infinite": infinite,
        "half": infinite.bfloat16(),
        "large": torch.full((10,), 3e38),  # the sum of squares is not finite
        "large half": torch.full((4,), 6e4, dtype=torch.float16),
        "a number": torch.tensor(1.0),
        "empty": torch.ones(0),
        "whole": torch.ones(3, dtype=torch.int8),
        "eight bits": torch.ones(3).to(torch.float8_e4m3fn),
    }
    assert not_finite(tensors.items()) == ["nan", "across", "infinite", "half"]

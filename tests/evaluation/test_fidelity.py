"""What an export's answers in another program amount to."""

from dataclasses import replace

from kilotune.evaluation.evidence import share
from kilotune.evaluation.fidelity import Fidelity, Parting, near
from kilotune.messages.sentences import say

CLOSE, FAR = Parting("a", "good", "bad", 0, 0.004), Parting("b", "good", "bad", 1, 0.02)
UNKNOWN = Parting("c", "good", "bad", 2)
FOUND = Fidelity(
    program="transformers 5", export="m", form="float32", prompts=500, apart=(), differences=(),
    judged={"accuracy": share(434, 500)}, figures={"accuracy": share(433, 500)}, tokens=1000,
    seconds=20.0, size=138_000_000, memory=0, near=near("float32"),
)  # fmt: skip


def codes(found: Fidelity) -> list[str]:
    return [fault["phrase"] for fault in found.faults]


def test_one_line_says_answers_figures_size_and_speed() -> None:
    found = replace(FOUND, differences=(CLOSE, CLOSE), form="GGUF Q8_0", program="llama.cpp b1")
    assert str(found) == (
        "llama.cpp b1, GGUF Q8_0: 498 of 500 answers equal, accuracy 0.866 against 0.868, "
        "138 MB, 50 tokens/s"
    )


def test_rounding_explains_a_few_near_differences_and_no_far_or_unknown_one() -> None:
    assert codes(FOUND) == []
    assert codes(replace(FOUND, differences=(CLOSE,) * 5)) == []
    assert codes(replace(FOUND, differences=(CLOSE,) * 6)) == ["verify-many"]
    assert codes(replace(FOUND, prompts=10, differences=(CLOSE,))) == []
    assert codes(replace(FOUND, differences=(CLOSE, FAR))) == ["verify-answers"]
    assert codes(replace(FOUND, differences=(UNKNOWN,))) == ["verify-answers"]
    said = say(replace(FOUND, differences=(CLOSE, FAR)).faults[0])
    assert said.startswith("1 of 500 answers differ where the judged token is more than 0.01 nats")
    assert said.endswith("(b)")
    # In bfloat16 the two are as good as equal.
    assert codes(replace(FOUND, differences=(FAR,), near=near("bfloat16"))) == []


def test_other_prompts_are_wrong_in_every_form_and_quantised_answers_in_none() -> None:
    quantised = replace(FOUND, quantised=True, differences=(FAR,) * 50)
    assert codes(quantised) == []
    assert codes(replace(quantised, apart=("a", "b"))) == ["verify-prompts"]
    assert codes(replace(FOUND, sampled=True, differences=(FAR,))) == []
    assert codes(replace(FOUND, samples=True)) == ["verify-samples"]

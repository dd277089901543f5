import time
from dataclasses import replace
from typing import Any

import pytest

from kilotune.data.example import Example, Message, Origin
from kilotune.data.finding import Finding
from kilotune.rendering.label_mask import Rendering, render
from kilotune.rendering.probe import chat_template
from kilotune.rendering.refusals import RenderError
from kilotune.rendering.renderings import Rendered, render_examples
from kilotune.rendering.template_checks import check_renderings, truncated
from kilotune.rendering.wording import Wording
from kilotune.training.batches import IGNORED, collate
from tests.support.tiny import CHATML, byte_tokenizer

TEMPLATE = chat_template(byte_tokenizer())
EXAMPLE = Example(
    "data:1", (Message("user", "hi"), Message("assistant", "yes")), Origin("a", 1), "yes"
)
GOOD = render(TEMPLATE, EXAMPLE)


def codes(rendering: Rendering) -> list[str]:
    return [finding.code for finding in check_renderings(TEMPLATE, [EXAMPLE], [rendering])]


def test_a_good_rendering_has_no_findings() -> None:
    assert codes(GOOD) == []


def test_a_stop_token_that_is_not_trained_is_found() -> None:
    assert codes(replace(GOOD, label_mask=(*GOOD.label_mask[:-1], False))) == ["stop-untrained"]


def test_a_prompt_unlike_the_one_that_is_generated_from_is_found() -> None:
    ids = (GOOD.token_ids[1], *GOOD.token_ids[1:])
    assert codes(replace(GOOD, token_ids=ids)) == ["prompt-mismatch"]


def test_an_answer_that_does_not_read_back_is_found() -> None:
    ids = (*GOOD.token_ids[:-2], GOOD.token_ids[1], GOOD.token_ids[-1])
    assert codes(replace(GOOD, token_ids=ids)) == ["answer-altered"]


def test_nothing_trained_is_found() -> None:
    untrained = replace(GOOD, label_mask=(False,) * len(GOOD.label_mask))
    assert codes(untrained) == ["nothing-trained"]


def test_truncation_is_counted_and_said() -> None:
    (finding,) = truncated(["data:1", "data:2"], 64)
    assert (finding.code, finding.rows) == ("truncated", ("data:1", "data:2"))
    assert finding.message == "prompts cut to fit max_length: 64 tokens (2): data:1, data:2"
    assert truncated([], 64) == []


def rendered(tokenizer: Any, *pairs: tuple[str, str], **settings: Any) -> Rendered:
    template = chat_template(tokenizer, **settings)
    talks = [(Message("user", asked), Message("assistant", said)) for asked, said in pairs]
    examples = [Example(f"data:{n}", talk, Origin("a", n)) for n, talk in enumerate(talks, 1)]
    return render_examples(template, Wording("", "{text}"), examples, max_length=512)


def found(result: Rendered) -> dict[str, tuple[str, ...]]:
    return {finding.code: finding.rows for finding in result.findings}


def test_a_system_message_that_the_template_inserts_is_said_where_others_have_their_own(
    smollm2_tokenizer: Any,
) -> None:
    template = chat_template(smollm2_tokenizer)
    system = Message("system", "Be brief.")

    def notes(*examples: Example) -> list[Finding]:
        found = render_examples(template, Wording("", "{text}"), examples, max_length=99)
        return [finding for finding in found.findings if finding.code == "default-system"]

    with_system = replace(EXAMPLE, id="data:2", messages=(system, *EXAMPLE.messages))
    (finding,) = notes(EXAMPLE, with_system)
    assert (finding.severity, finding.rows) == ("note", ("data:1",))
    assert "helpful AI assistant named SmolLM" in finding.message
    assert notes(EXAMPLE, EXAMPLE) == notes(with_system) == []


def test_padding_with_the_end_is_said_once_and_only_where_something_is_padded(
    smollm2_tokenizer: Any,
) -> None:
    alike = rendered(smollm2_tokenizer, ("Hi", "Hello!"), ("Hi", "Hello!"))
    assert alike.findings == ()
    assert alike.share() == "6 of 68 tokens are trained (8.8%)"
    longer = rendered(smollm2_tokenizer, ("Hi", "Hello!"), ("Hi there", "Hello!"))
    assert found(longer) == {"pad-is-stop": ()}


def test_an_end_that_the_model_does_not_stop_at_is_said_unless_its_settings_know_it() -> None:
    other = byte_tokenizer(eos_token="<|endoftext|>", pad_token="<|im_start|>")
    assert found(rendered(other, ("Hi", "Yes"))) == {"stop-differs": ()}
    end = other.convert_tokens_to_ids("<|im_end|>")
    assert found(rendered(other, ("Hi", "Yes"), model_stops=[0, end])) == {}
    same = byte_tokenizer()
    assert found(rendered(same, ("Hi", "Yes"), model_stops=[0])) == {"stop-differs": ()}


def test_padding_that_is_the_end_leaves_the_real_end_trained() -> None:
    result = rendered(byte_tokenizer(pad_token="<|im_end|>"), ("Hi", "Yes"), ("Hi there", "No"))
    assert "pad-is-stop" in found(result)
    end = result.renderings[0].token_ids[-1]
    batch = collate(result.renderings, pad_id=end)
    # Padding is on the left, masked by place; the last target of each row is the real end.
    short, long = (len(r.token_ids) for r in result.renderings)
    padding = long - short
    assert batch.input_ids[0, :padding].tolist() == [end] * padding
    assert batch.attention_mask[0].tolist() == [0] * padding + [1] * short
    trained = [[t for t in row if t != IGNORED] for row in batch.targets.tolist()]
    assert trained == [list(r.token_ids[r.prompt_length :]) for r in result.renderings]
    assert [row[-1] for row in trained] == [end, end]


def test_a_beginning_the_tokenizer_does_not_want_is_said() -> None:
    special = ["<pad>", "<s>", "<|im_start|>", "<|im_end|>"]
    begun = byte_tokenizer("{{ bos_token }}" + CHATML, special=special, bos_token="<s>")
    assert found(rendered(begun, ("Hi", "Yes"))) == {"unwanted-bos": ("data:1",)}
    wanted = byte_tokenizer(
        "{{ bos_token }}" + CHATML, special=special, bos_token="<s>", adds_bos=True
    )
    assert found(rendered(wanted, ("Hi", "Yes"))) == {}


def test_a_beginning_in_the_middle_is_said() -> None:
    special = ["<pad>", "<s>", "<|im_start|>", "<|im_end|>"]
    repeated = CHATML.replace("<|im_start|>{{", "{{ bos_token }}<|im_start|>{{").replace(
        "<|im_start|>assistant", "{{ bos_token }}<|im_start|>assistant"
    )
    tokenizer = byte_tokenizer(repeated, special=special, bos_token="<s>", adds_bos=True)
    assert found(rendered(tokenizer, ("Hi", "Yes"))) == {"bos-inside": ("data:1",)}


def test_characters_that_a_tokenizer_cannot_spell_are_errors_with_all_their_rows(
    smollm2_tokenizer: Any,
) -> None:
    lost = "\U00040000"
    result = rendered(smollm2_tokenizer, ("Hi", lost), ("Hi", "fine"), ("Hi", f"a{lost}"))
    assert found(result)["answer-altered"] == ("data:1", "data:3")
    assert result.findings[0].severity == "error"
    assert result.findings[0].message.endswith("(2): data:1, data:3")


def test_accents_that_a_tokenizer_puts_together_are_no_error(qwen_base: Any) -> None:
    result = rendered(qwen_base, ("Hi", "cafe\u0301"), wanted="chatml")
    assert found(result)["answer-composed"] == ("data:1",)
    assert [f for f in result.findings if f.severity == "error"] == []


def test_an_example_without_an_answer_is_an_error() -> None:
    template = chat_template(byte_tokenizer())
    asked = Example("data:4", (Message("user", "hi"),), Origin("a", 4))
    result = render_examples(template, Wording("", "{text}"), [asked], max_length=99)
    assert found(result) == {"nothing-trained": ("data:4",)}
    assert result.trained == 0
    assert result.tokens == len(template.prompt_ids(asked.messages))


def test_a_conversation_that_the_assistant_begins_is_an_error_of_its_own() -> None:
    greeting, *rest = (Message(r, "x") for r in ("assistant", "user", "assistant"))
    wording = Wording("", "{text}")
    talks = [(greeting, *rest), (greeting,), (greeting, rest[0]), (Message("system", "y"), *rest)]
    examples = [Example(f"data:{n}", talk, Origin("a", n)) for n, talk in enumerate(talks, 1)]
    template = chat_template(byte_tokenizer())
    result = render_examples(template, wording, examples, max_length=99)
    (finding,) = result.findings
    assert (finding.code, finding.severity) == ("answer-first", "error")
    assert finding.rows == ("data:1", "data:2", "data:3")
    assert "train_on: last" in finding.fix
    last = render_examples(template, wording, examples, max_length=99, train_on="last")
    assert found(last) == {"answer-first": ("data:2", "data:3")}


def test_a_conversation_without_messages_is_an_error_of_its_own() -> None:
    template = chat_template(byte_tokenizer())
    empty = Example("data:3", (), Origin("a", 3))
    result = render_examples(template, Wording("", "{text}"), [EXAMPLE, empty], max_length=99)
    assert found(result) == {"empty-conversation": ("data:3",)}
    with pytest.raises(RenderError, match="without any message"):
        template.prompt_ids(())


def test_an_earlier_turn_that_nothing_ends_is_an_error() -> None:
    loose = (
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    template = chat_template(byte_tokenizer(loose))
    turns = [Message(role, "x") for role in ("user", "assistant", "user", "assistant")]
    talk = Example("data:1", tuple(turns), Origin("a", 1))

    def codes_of(train_on: Any) -> list[str]:
        wording = Wording("", "{text}")
        result = render_examples(template, wording, [talk], max_length=99, train_on=train_on)
        return [finding.code for finding in result.findings]

    assert codes_of("all_assistant") == ["stop-untrained"]
    assert codes_of("last") == []


def test_a_thousand_examples_take_seconds(smollm2_tokenizer: Any) -> None:
    words = [f"w{n}" for n in range(15)]
    pairs = [(" ".join(words[n % 9 :] * 4), words[n % 14]) for n in range(1000)]
    start = time.process_time()
    result = rendered(smollm2_tokenizer, *pairs)
    assert time.process_time() - start < 10
    assert len(result.renderings) == 1000

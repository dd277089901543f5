"""Templates of strangers: rendered as transformers does it, and stopped where it never would."""

import threading
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kilotune.cli.main import app
from kilotune.data.example import Message
from kilotune.errors import KilotuneError
from kilotune.render import sandbox
from kilotune.render.probe import chat_template
from kilotune.render.sandbox import LimitError, rendered
from tests.tiny import CHATML, byte_tokenizer, write_tiny_model

TEMPLATES = sorted((Path(__file__).parent / "templates").glob("*.jinja"))
TALKS = (
    (Message("user", " Hi {{ x }} "),),
    (Message("user", "a"), Message("assistant", "<think>\nb\n</think>\n\nc")),
    (
        Message("system", "Be brief."),
        Message("user", "one"),
        Message("assistant", "two"),
        Message("user", "3 ≤ π 😀"),
        Message("assistant", "four"),
    ),
)


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_the_text_is_the_one_that_transformers_makes(path: Path) -> None:
    tokenizer = byte_tokenizer(path.read_text(), bos_token="<|endoftext|>")
    template = chat_template(tokenizer)
    made = 0
    for talk in TALKS:
        for asked in (False, True):
            turns = [
                {"role": m.role, "content": template._content(m)} for m in template.fitting(talk)
            ]
            plain = tokenizer.apply_chat_template(
                turns,
                chat_template=template.source,
                tokenize=False,
                add_generation_prompt=asked,
                **template.arguments,
            )
            assert template.text(talk, generation_prompt=asked) == plain
            made += 1
    assert made == 6


WHOLE = """
{%- set ns = namespace(found=false, n=0) -%}
{%- for m in messages recursive -%}
  {%- set ns.n = ns.n + loop.index * 2 ** 3 % 5 -%}
  {%- if m.role not in ['user', "tool"] -%}{%- continue -%}{%- endif -%}
  {{ '%s-%03d|' % (m.content, ns.n) ~ '{:>4}'.format(m.role) ~ m | tojson(indent=1) }}
  {%- set ns.found = true -%}
{%- endfor -%}
{%- macro say(what, often=2) -%}{{ what * often }}{{ caller() if caller }}{%- endmacro -%}
{%- call say('ab') -%}!{%- endcall -%}
{%- set block -%} {{ ns.found }} {{ none }} {{ nothing }} {%- endset -%}
{{ block | trim }} {{ (messages | map(attribute='role') | list) + [1.5] }} {{ dict(a=(1,), b=2) }}
{%- for k, v in {'x': 1, 'y': [2]}.items() if k != 'z' -%}{{ k }}{{ v }}{%- else -%}-{%- endfor -%}
{%- generation -%}{{ messages[-1].content.split(' ')[0].upper() | replace('A', 'bb') }}
{%- endgeneration -%}
{{ messages | selectattr('role', 'equalto', 'user') | list | length }} {{ 'a'.center(9, '*') }}
"""


def test_every_construct_comes_out_as_without_limits() -> None:
    tokenizer = byte_tokenizer(WHOLE)
    turns = [{"role": "system", "content": "s"}, {"role": "user", "content": "a b <x> ü"}]
    plain = tokenizer.apply_chat_template(turns, tokenize=False)
    given = {"messages": turns, "tools": None, "documents": None, "add_generation_prompt": False}
    assert rendered(WHOLE, **given, **tokenizer.special_tokens_map) == plain
    assert "abab!" in plain


# Each stops at once, whatever the machine: what it would make is known before it is made.
TOO_LARGE = {
    "{{ 'a' * 1000000000 }}": "at once",
    "{{ 1000000000 * messages[0].content }}": "at once",
    "{{ [1] * 1000000000 }}": "at once",
    "{{ '%1000000000d' % 1 }}": "width",
    "{{ '%*d' % (1000000000, 1) }}": "width",
    "{{ '%1000000000d' | format(1) }}": "width",
    "{{ '{:1000000000}'.format(1) }}": "width",
    "{{ '{:{}}'.format(1, 1000000000) }}": "width",
    "{{ '{a:1000000000}'.format_map({'a': 1}) }}": "width",
    "{{ 'a'.ljust(1000000000) }}": "to ljust",
    "{{ 'a' | center(1000000000) }}": "to center",
    "{% filter center(1000000000) %}a{% endfilter %}": "to center",
    "{{ [1] | batch(1000000000, 'x') | list }}": "to batch",
    "{{ [1] | tojson(indent=1000000000) }}": "to tojson",
    "{{ 2 | round(1000000000, 'ceil') }}": "to round",
    "{{ (1).to_bytes(1000000000, 'big') }}": "to to_bytes",
    "{{ 10 ** 1000000000 }}": "too large a number",
    "{{ ('a' * 100000).replace('a', 'b' * 100000) }}": "at once",
    "{{ ('a' * 100000) | join('b' * 100000) }}": "at once",
    "{{ ('a\\n' * 100000) | indent(99999) }}": "at once",
}
# These grow step by step, to a limit that the tests set low.
GROWING = {
    "{% for a in range(99) %}xxxxxxxxxxxxxxxx{% endfor %}": "characters of one conversation",
    "{% for a in range(99) %}{{ 'x' * 16 }}{% endfor %}": "characters of one conversation",
    "{{ range(99) | map('center', 20) | join }}": "characters of one conversation",
    "{% set ns = namespace(x='abcd') %}{% for i in range(12) %}{% set ns.x = ns.x + ns.x %}"
    "{% endfor %}": "characters of one conversation",
    "{% set ns = namespace(x='abcd') %}{% for i in range(12) %}{% set ns.x = ns.x ~ ns.x %}"
    "{% endfor %}": "characters of one conversation",
    "{% set ns = namespace(x=[]) %}{% for i in range(8) %}{% set ns.x = [ns.x, ns.x] %}"
    "{% endfor %}{{ ns.x }}": "a list of more than",
    "{% set ns = namespace(x=1) %}{% for i in range(8) %}{% set ns.x = dict(a=ns.x, b=ns.x) %}"
    "{% endfor %}{{ ns.x }}": "a list of more than",
    "{% set ns = namespace(x=1) %}{% for i in range(8) %}{% set ns.x = namespace(a=ns.x, b=ns.x) %}"
    "{% endfor %}{{ ns.x }}": "a list of more than",
}
# As long as they are given; the tests give them a hundredth of a second.
LASTING = (
    "{% for a in range(2000) %}{% for b in range(2000) %}{% endfor %}{% endfor %}",
    "{% for a in range(2000) if (range(2000) | list | length) < 0 %}{% endfor %}",
    "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(20) }}",
    "{% for m in messages %}{% for a in range(99999) %}{% set b = a %}{% endfor %}{% endfor %}",
)
TALK = {"messages": [{"role": "user", "content": "Hi"}]}


@pytest.mark.parametrize("source", TOO_LARGE)
def test_what_would_be_too_large_is_not_made(source: str) -> None:
    with pytest.raises(LimitError, match=TOO_LARGE[source]):
        rendered(source, **TALK)


@pytest.mark.parametrize("source", GROWING)
def test_what_grows_too_large_is_stopped(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rendered(source, **TALK)  # by itself it is harmless
    monkeypatch.setattr(sandbox, "MADE", 1500)
    with pytest.raises(LimitError, match=GROWING[source]):
        rendered(source, **TALK)


@pytest.mark.parametrize("source", LASTING)
def test_what_takes_too_long_is_stopped(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "SECONDS", 0.01)
    with pytest.raises(LimitError, match=r"takes more than 0.01 seconds for one conversation"):
        rendered(source, **TALK)


def test_it_is_stopped_in_a_thread_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "SECONDS", 0.01)
    said: list[str] = []

    def work() -> None:
        try:
            rendered(LASTING[0], **TALK)
        except LimitError as error:
            said.append(str(error))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert said == ["takes more than 0.01 seconds for one conversation"]


def test_long_conversations_are_within_the_limits() -> None:
    turns = [Message("user", "word " * 2000), Message("assistant", "answer " * 500)] * 100
    template = chat_template(byte_tokenizer((TEMPLATES[-1]).read_text()))
    assert len(template.text(turns)) > 1_300_000


def test_a_template_that_only_lasts_with_some_rows_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lasting = "{% if messages | length > 6 %}" + LASTING[0] + "{% endif %}"
    template = chat_template(byte_tokenizer(lasting + CHATML))
    monkeypatch.setattr(sandbox, "SECONDS", 0.01)
    with pytest.raises(KilotuneError, match=r"the chat template takes more than 0.01 seconds"):
        template.text([Message("user", "a"), Message("assistant", "b")] * 4)


@pytest.mark.parametrize("file", [False, True])
def test_render_says_which_template_it_was(
    file: bool, labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox, "SECONDS", 0.01)
    model = write_tiny_model(tmp_path / "model")
    own = tmp_path / "own.jinja" if file else model / "chat_template.jinja"
    own.write_text(LASTING[0] + CHATML)
    given = ["--chat-template", str(own)] if file else []
    result = CliRunner().invoke(app, ["render", str(labelled), "--model", str(model), *given])
    assert result.exit_code == 2
    assert (
        f"{own if file else model}: the chat template takes more than 0.01 seconds" in result.stderr
    )
    assert "Use another with --chat-template" in result.stderr


def test_a_file_that_is_nested_too_deeply_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "own.jinja"
    file.write_text("{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}")
    with pytest.raises(KilotuneError, match="not a valid Jinja template: nested too deeply"):
        chat_template(byte_tokenizer(), str(file))

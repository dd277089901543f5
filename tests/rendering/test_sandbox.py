"""Templates of strangers: rendered as transformers does it, and stopped where it never would."""

import threading
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kilotune.cli.main import app
from kilotune.data.example import Message
from kilotune.errors import KilotuneError
from kilotune.rendering import sandbox
from kilotune.rendering.probe import chat_template
from kilotune.rendering.sandbox import rendered
from kilotune.rendering.sizes import TemplateLimitError
from tests.support.tiny import CHATML, byte_tokenizer, write_tiny_model

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
    "{{ '%1000000000d' % 1 }}": "at once",
    "{{ '%.1000000000d' % 1 }}": "at once",
    "{{ '%(a)1000000000d' % {'a': 1} }}": "at once",
    "{{ '%5%%1000000000d' % 1 }}": "at once",
    "{{ '%(a(b))1000000000d' % {'a(b)': 1} }}": "a name with brackets",
    "{{ '%1000000000d'.encode() % 1 }}": "at once",
    "{{ '%*d' % (1000000000, 1) }}": "width that is computed",
    "{{ '%1000000000d' | format(1) }}": "at once",
    "{{ ['%1000000000d'] | format(1) }}": "at once",
    "{{ ('%(a)s' * 100000) | format(a='b' * 100000) }}": "at once",
    "{{ ('%(a)s' * 100000) % {'a': 'b' * 100000} }}": "at once",
    "{{ '{:1000000000}'.format(1) }}": "at once",
    "{{ '{:.1000000000}'.format('') }}": "at once",
    "{{ '%a{:1000000000}'.format(1) }}": "at once",
    "{{ ('%a{0:99999}' * 4000).format(1) }}": "at once",
    "{{ ('{0}' * 100000).format('b' * 100000) }}": "at once",
    "{{ '{:{}}'.format(1, 1000000000) }}": "width that is computed",
    "{{ '{a:1000000000}'.format_map({'a': 1}) }}": "at once",
    "{{ 'a'.ljust(1000000000) }}": "at once",
    "{{ 'a' | center(1000000000) }}": "at once",
    "{{ 'a' | center(width=1000000000) }}": "at once",
    "{{ ('a' | escape).center(1000000000) }}": "at once",
    "{% filter center(1000000000) %}a{% endfilter %}": "at once",
    "{{ '\\t'.expandtabs(1000000000) }}": "at once",
    "{{ [1] | batch(1000000000, 'x') | list }}": "at once",
    "{{ [1] | slice(1000000000) | list }}": "at once",
    "{{ [1] | tojson(indent=1000000000) }}": "at once",
    "{{ ([1] * 100000) | tojson(separators=('b' * 100000, '')) }}": "at once",
    "{{ 2 | round(1000000000, 'ceil') }}": "too large a number",
    "{{ (1).to_bytes(1000000000, 'big') }}": "at once",
    "{{ (1).to_bytes(length=1000000000, byteorder='big') }}": "at once",
    "{{ 10 ** 1000000000 }}": "too large a number",
    "{{ ('a' * 100000).replace('a', 'b' * 100000) }}": "at once",
    "{{ ('a' * 100000).replace('', 'b' * 100000) }}": "at once",
    "{{ ('a' * 100000) | replace(new='b' * 100000, old='a') }}": "at once",
    "{{ ('a' * 100000).translate({97: 'b' * 100000}) }}": "at once",
    "{{ ('a' * 100000) | join('b' * 100000) }}": "at once",
    "{{ range(9999) | map('string') | join('b' * 100000) }}": "at once",
    "{{ ('b' * 100000).join(range(9999) | map('string')) }}": "at once",
    "{{ ('a\\n' * 100000) | indent(99999) }}": "at once",
    "{{ ('a\u2028' * 100000) | indent('b' * 99999) }}": "at once",
    "{{ ('a ' * 100000) | wordwrap(1, wrapstring='b' * 100000) }}": "at once",
    "{{ ('http://a.b ' * 10000) | urlize(target='b' * 100000) }}": "at once",
}
# What looks as if it were large.
HARMLESS = {
    "{{ x.replace(y, '') | length }}": "40000",
    "{{ x | replace(y, '') | length }}": "40000",
    "{{ x.replace('', y, 2) | length }}": "55002",
    "{{ x | truncate(9000) | length }}": "9000",
    "{{ x.startswith(y) }} {{ x.strip(y) | length }} {{ (x | trim(y)) | length }}": "False 0 0",
    "{{ x.split(y) | length }} {{ x.count(y) }} {{ x.find(y) }}": "1 0 -1",
    "{{ x | wordwrap(100000) | length }}": "40000",
    "{{ '{}'.format(1700000000) }}": "1700000000",
    "{{ '%s-%s' | format(1700000000, 2) }}": "1700000000-2",
    "{{ nothing | default(1000000) }} {{ '7' | int(1700000000) }}": "1000000 7",
    "{{ '{name}-{text}-{on}'.format(name=1, text=2, on=3) }}": "1-2-3",
    "{{ '%(name)s-%(text)s-%(on)s' | format(name=1, text=2, on=3) }}": "1-2-3",
    "{% for b in 'ab' %}{{ b.replace('a', 'c') }}{{ '{:>2}'.format(b) }}{% endfor %}": "c ab b",
    "{% block b %}{{ 'a'.replace('a', 'c') }}{{ '-'.join('ab') }}{% endblock %}": "ca-b",
    "{{ '100%% of 1700000000, %5.1f' % 2 }}": "100% of 1700000000,   2.0",
    "{{ [x, x] | tojson(indent=4) | length }}": "80018",
    "{{ [1, 2] | map('string') | join('-') }} {{ '-'.join(['a', 'b']) }}": "1-2 a-b",
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
    with pytest.raises(TemplateLimitError, match=TOO_LARGE[source]):
        rendered(source, **TALK)


@pytest.mark.parametrize("source", HARMLESS)
def test_what_is_not_large_is_made(source: str) -> None:
    assert rendered(source, x="a" * 40_000, y="ba" * 3750 + "a") == HARMLESS[source]


@pytest.mark.parametrize("source", GROWING)
def test_what_grows_too_large_is_stopped(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rendered(source, **TALK)  # by itself it is harmless
    monkeypatch.setattr(sandbox, "MADE", 1500)
    with pytest.raises(TemplateLimitError, match=GROWING[source]):
        rendered(source, **TALK)


@pytest.mark.parametrize("source", LASTING)
def test_what_takes_too_long_is_stopped(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "SECONDS", 0.01)
    with pytest.raises(
        TemplateLimitError, match=r"takes more than 0.01 seconds for one conversation"
    ):
        rendered(source, **TALK)


def test_it_is_stopped_in_a_thread_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "SECONDS", 0.01)
    said: list[str] = []

    def work() -> None:
        try:
            rendered(LASTING[0], **TALK)
        except TemplateLimitError as error:
            said.append(str(error))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert said == ["takes more than 0.01 seconds for one conversation"]


def test_each_thread_has_limits_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the midst of a conversation another thread renders one by the same template."""
    source = "{{ 'a' * 700 }}{{ meanwhile() }}{{ 'a' * 700 }}"
    while time.thread_time() < 1:
        pass
    monkeypatch.setattr(sandbox, "SECONDS", 0.5)
    monkeypatch.setattr(sandbox, "MADE", 3000)  # an `a` counts when it is made and when written
    done: list[str] = []

    def meanwhile() -> str:
        run = threading.Thread(target=lambda: done.append(rendered(source, meanwhile=str)))
        run.start()
        run.join()
        return ""

    assert rendered(source, meanwhile=meanwhile) == "a" * 1400 == done[0]


def test_what_a_template_is_given_may_have_any_name() -> None:
    given = {"source": "a", "self": "b", "tools": "c", "variables": "d"}
    template = chat_template(byte_tokenizer("{{ source }}{{ tools }}" + CHATML), arguments=given)
    assert template.text([Message("user", "x")]).startswith("ac<|im_start|>")
    mine = chat_template(byte_tokenizer(CHATML), arguments={"messages": "theirs"})
    assert "ours" in mine.text([Message("user", "ours")])


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

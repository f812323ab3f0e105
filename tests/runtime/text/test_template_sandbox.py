"""Hostile chat templates end soon, in little memory, and see nothing; templates of real models do not notice."""

from __future__ import annotations

import threading
import time
import tracemalloc
from typing import Any

import pytest

from edgellm.errors import ChatTemplateError
from edgellm.text.chat import ChatTemplate
from edgellm.text.sandbox import budget

MESSAGES: list[dict[str, Any]] = [{"role": "user", "content": "Hi there"}, {"role": "assistant", "content": "Well?"}]
STEPS = 400_000  # a tenth of what templates have, so that the tests take a tenth of the time
MEMORY = 40 << 20  # bytes of Python's that a hostile template may take with so many steps
SECONDS = 8.0  # of the processor's time, on a slow machine and with every allocation counted


def doubled(kind: str, times: int = 60) -> str:
    """`x` holding itself twice, again and again."""
    return "{% set ns = namespace(x=[1], y=[1]) %}{% for i in range(TIMES) %}{% set ns.x = X %}{% endfor %}".replace(
        "TIMES", str(times)
    ).replace("X", kind)


LOOPS = {
    "range": "{% for i in range(1000000000) %}{% endfor %}",
    "ranges": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "filtered": "{% for i in range(99999) %}{% for j in range(99999) if false %}{% endfor %}{% endfor %}",
    "select": "{% for i in range(99999) %}{{ range(99999) | select('none') | list }}{% endfor %}",
    "recursive macro": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "macros that double": "{% macro a(n) %}{% if n %}{{ a(n-1) }}{{ a(n-1) }}{% endif %}{% endmacro %}{{ a(50) }}",
    "recursive loop": "{% for i in [1, 1] recursive %}{{ loop([1, 1]) }}{% endfor %}",
    "recursive block": "{% block a %}{{ self.a() }}{% endblock %}",
    "caller": "{% macro w() %}{% for i in range(99999) %}{{ caller() }}{% endfor %}{% endmacro %}"
    "{% call w() %}{% call w() %}x{% endcall %}{% endcall %}",
    "a long body": "{% for i in range(99999) %}" + "{{ '' }}" * 2000 + "{% endfor %}",
    "a long list": "{% for i in range(99999) %}{% set a = [" + "1," * 5000 + "] %}{% endfor %}",
    "slices": "{% set a = 'x' * 1000000 %}{% for i in range(99999) %}{% set b = a[1:] %}{% endfor %}",
    "comparisons": "{% set a = 'x' * 999999 %}{% set b = 'x' * 999999 %}"
    "{% for i in range(99999) %}{% if a == b %}{% endif %}{% endfor %}",
    "searches": "{% set a = 'ab' * 999999 %}{% for i in range(99999) %}{{ a.count('c') }}{% endfor %}",
    "sorting": "{% for i in range(9999) %}{{ range(99999) | sort | length }}{% endfor %}",
    "equal hashes": "{{ range(0, 2305843009213693951 * 90000, 2305843009213693951) | unique | list }}",
}
SIZES = {
    "text": "{{ 'a' * 10000000000 }}",
    "list": "{{ ([0] * 1000000000) | length }}",
    "power": "{{ 2 ** 1000000000 }}",
    "squares": doubled("(ns.x if ns.x is number else 3) ** 2"),
    "concatenation": doubled("ns.x ~ ns.x"),
    "sum of texts": "{% set ns = namespace(x='a') %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "sum of lists": doubled("ns.x + ns.x"),
    "nested, printed": doubled("[ns.x, ns.x]") + "{{ ns.x }}",
    "nested, JSON": doubled("[ns.x, ns.x]") + "{{ ns.x | tojson }}",
    "nested, hashed": doubled("(ns.x, ns.x)") + "{{ {ns.x: 1} }}",
    "nested, looked up": doubled("(ns.x, ns.x)") + "{{ {}.get(ns.x) }}",
    "nested, compared": doubled("[ns.x, ns.x]") + "{{ ns.x in [ns.x] }}",
    "namespaces": "{% set n0 = namespace() %}"
    + "".join(f"{{% set n{i + 1} = namespace(a=n{i}, b=n{i}) %}}" for i in range(60))
    + "{{ n60 }}",
    "center": "{{ 'a'.center(10000000000) }}",
    "center, the filter": "{{ 'a' | center(10000000000) }}",
    "zfill": "{{ '1'.zfill(9999999999) }}",
    "expandtabs": "{{ '\t'.expandtabs(1000000000) }}",
    "translate": "{{ 'aaa'.translate({97: 'b' * 100000}) }}",
    "to_bytes": "{{ (1).to_bytes(10000000000, 'big') }}",
    "replace": "{% set a = 'x' * 99999 %}{{ a.replace('x', a) }}",
    "replace, the filter": "{% set a = 'x' * 99999 %}{{ a | replace('x', a) }}",
    "join": "{% set a = 'x' * 99999 %}{{ a.join(a) }}",
    "join of one text": "{% set a = 'x' * 99999 %}{{ ([{'c': a}] * 50000) | map(attribute='c') | join }}",
    "percent": "{{ '%9999999999d' % 1 }}",
    "percent with a star": "{{ '%*d' % (1000000000, 1) }}",
    "percent by name": "{% set a = 'x' * 99999 %}{{ ('%(a)s' * 99999) % {'a': a} }}",
    "format": "{{ '{:9999999999}'.format(1) }}",
    "format, nested": "{{ '{:{w}}'.format(1, w=1000000000) }}",
    "format, repeated": "{% set a = 'x' * 99999 %}{{ ('{0}' * 99999).format(a) }}",
    "batch": "{{ [1] | batch(10000000000, 0) | list }}",
    "slice": "{{ [1] | slice(10000000000) | list }}",
    "round": "{{ 1.5 | round(1000000000, 'ceil') }}",
    "indent": "{{ ('\n' * 99999) | indent(65000) }}",
    "indented JSON": "{{ [1] | tojson(indent=1000000000) }}",
    "split": "{{ ('a ' * 10000000).split() }}",
    "a set block": "{% set x %}{% for i in range(99999) %}" + "y" * 9999 + "{% endfor %}{% endset %}",
    "a joiner": "{% set j = joiner('x' * 999999) %}{% for i in range(99999) %}{{ j() }}{% endfor %}",
    "a date": "{{ strftime_now('%' * 1000000) }}",
    "a number": "{{ ('f' * 9999999) | int(base=16) }}",
}
SOURCES = {
    "parentheses": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "lists": "{{ " + "[" * 3000 + "]" * 3000 + " }}",
    "loops": "{% for i in [1] %}" * 100 + "{% endfor %}" * 100,
    "additions": "{{ 1" + "+1" * 5000 + " }}",
    "filters": "{{ 1" + "|string" * 2000 + " }}",
    "digits": "{{ " + "9" * 9999 + " }}",
    "length": "x" * 300_000,
}
TRICKS = {
    "class": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "globals of a class": "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "globals of a loop": "{% for x in [1] %}{{ loop.__init__.__globals__ }}{% endfor %}",
    "the context": "{{ self._TemplateReference__context.environment }}",
    "a frame": "{{ (messages | map('string')).gi_frame.f_globals }}",
    "format": "{{ '{0.__class__.__mro__}'.format('') }}",
    "methods of types": "{{ dict.fromkeys(range(9)) }}{{ dict.items({}) }}",
    "a change of the messages": "{{ messages.append(1) }}",
    "a change of a message": "{{ messages[0].update({'role': 'system'}) }}",
    "another file": "{% include '/etc/passwd' %}",
    "another file, imported": "{% import '/etc/passwd' as x %}",
}
HARMLESS = {
    "{{ '' | attr('__class__') }}{{ ''['__class__'] }}{{ strftime_now.__globals__ }}{{ raise_exception.__code__ }}": "",
    "{{ [''] | map(attribute='__class__') | list | length }}": "1",
    "{{ 'x' | attr('format')(1) ~ ('{0.__class__}' | attr('format'))('') }}": "x",
}


@pytest.mark.parametrize("name", [*LOOPS, *SIZES, *SOURCES, *TRICKS])
def test_hostile_templates_are_stopped(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "MAX_STEPS", STEPS)
    template = ChatTemplate({"default": (LOOPS | SIZES | SOURCES | TRICKS)[name]}, {})
    tracemalloc.start(1)
    start = time.process_time()
    try:
        with pytest.raises(ChatTemplateError):
            template.render(MESSAGES)
        memory = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert memory < MEMORY
    assert time.process_time() - start < SECONDS
    assert MESSAGES[0] == {"role": "user", "content": "Hi there"}


def test_it_needs_no_main_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "MAX_STEPS", STEPS)
    errors: list[BaseException] = []

    def render() -> None:
        try:
            ChatTemplate({"default": LOOPS["ranges"]}, {}).render(MESSAGES)
        except ChatTemplateError as error:
            errors.append(error)

    thread = threading.Thread(target=render)
    thread.start()
    thread.join()
    assert "was stopped: it needs more than 400,000 steps" in str(errors[0])


@pytest.mark.parametrize("template", HARMLESS)
def test_what_must_not_be_seen_is_not_there(template: str) -> None:
    assert ChatTemplate({"default": template}, {}).render(MESSAGES) == HARMLESS[template]


def test_each_render_has_the_whole_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "MAX_STEPS", 20_000)
    template = ChatTemplate({"default": "{% for m in messages %}{{ m.role ~ m.content }}{% endfor %}"}, {})
    for _ in range(3):
        assert template.render(MESSAGES * 50)
    with pytest.raises(ChatTemplateError, match="was stopped"):
        template.render(MESSAGES * 2000)


ORDINARY = """{%- set ns = namespace(found=false, text='') -%}
{%- macro shown(value, depth=0) -%}
{%- for key, item in value.items() -%}
{{ '  ' * depth ~ key }}: {{ item if item is string else item | tojson }};
{%- endfor -%}
{%- endmacro -%}
{%- for message in messages[::-1] if message.role != 'tool' -%}
{%- set ns.found = ns.found or message.role == 'user' -%}
{%- set content = message.content -%}
{%- if '</think>' in content %}{% set content = content.split('</think>')[-1].lstrip('\n') %}{% endif -%}
{{ loop.index0 }}/{{ loop.length }} {{ '%s-%03d' % (message.role, loop.index) }}
{{ content | trim | replace('a', 'A') }}
{%- if loop.last %}{% continue %}{% endif %}{{ shown(message, 1) }}
{%- endfor -%}
{{ ns.found }} {{ messages | map(attribute='role') | unique | join(', ') }} {{ {'b': 1, 'a': [2]} | dictsort }}
{{ messages | selectattr('role', 'equalto', 'user') | list | length }} {{ range(3) | sum }} {{ 7 // 2 }} {{ 2 ** 10 }}
{{ 'x'.upper().center(5, '-') }} {{ '{:>4}|{}'.format(1, 'y') }} {{ [3, 1] | sort | first }}
{{ messages[0]['role'] in ['user'] }}
"""


def test_ordinary_templates_do_not_notice() -> None:
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    messages = [
        *MESSAGES,
        {"role": "tool", "content": "7"},
        {"role": "assistant", "content": "<think>a</think>\nbanana "},
    ]
    plain = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    expected = plain.from_string(ORDINARY).render(messages=messages).replace("&#39;", "'")
    assert ChatTemplate({"default": ORDINARY}, {}).render(messages) == expected

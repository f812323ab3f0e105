"""Templates in the styles of well-known models, rendered here and by transformers."""

from __future__ import annotations

import json
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jinja2
import pytest

from edgellm.errors import ChatTemplateError, InputError
from edgellm.text.chat import ChatTemplate
from tiny_package import tiny_tokenizer

SPECIAL = {"bos_token": "<|bos|>", "eos_token": "<|eos|>", "pad_token": "<|pad|>"}
CHATML = """{%- if tools %}
    {{- '<|im_start|>system\n' }}
    {%- for tool in tools %}
        {{- tool | tojson }}
    {%- endfor %}
    {{- '<|im_end|>\n' }}
{%- endif %}
{% for message in messages %}
    {%- if loop.first and message['role'] != 'system' %}
        {{- '<|im_start|>system\nYou are helpful.<|im_end|>\n' }}
    {%- endif %}
    {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}
{%- endfor %}
{% if add_generation_prompt %}
<|im_start|>assistant
{% endif %}
"""
LLAMA3 = """{{ bos_token }}{%- if date_string is not defined %}{%- set date_string = "26 Jul 2024" %}{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\n\nToday: " + date_string + "\n\n" + system_message + "<|eot_id|>" }}
{%- for message in messages %}
    {%- if message.role == 'tool' %}{% continue %}{% endif %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}
    {%- generation %}{{ message['content'] | trim }}{% endgeneration %}
    {{- '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif %}
"""
GEMMA = """{{ bos_token }}
{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}
{% for message in messages %}
  {% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
    {{ raise_exception('Roles must alternate user/assistant/user/assistant/...') }}
  {% endif %}
  {% set role = 'model' if message['role'] == 'assistant' else message['role'] %}
{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}
{% endfor %}
{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}
"""
ODDITIES = """{% set ns = namespace(n=0) %}{% for m in messages %}
{% set ns.n = ns.n + 1 %}{% if ns.n > 2 %}{% break %}{% endif %}
{{ m | tojson(indent=2) }} {{ m.content | tojson }} {{ eos_token }}
{% endfor %}{{ documents is none }}{{ tools is none }}{{ strftime_now('%Y') | length }}"""

TEMPLATES = {"chatml": CHATML, "llama3": LLAMA3, "gemma": GEMMA, "oddities": ODDITIES}
USER: dict[str, Any] = {"role": "user", "content": "  What is 1 < 2 & é?\n"}
CONVERSATIONS = {
    "one": [USER],
    "three": [USER, {"role": "assistant", "content": "True. "}, {"role": "user", "content": "Why?"}],
    "system": [{"role": "system", "content": "Be brief."}, USER],
}
TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]


def reference(template: str, messages: list[dict[str, Any]], **options: Any) -> str:
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tiny_tokenizer(), chat_template=template, **SPECIAL)
    return str(tokenizer.apply_chat_template(messages, tokenize=False, **options))


@pytest.mark.parametrize("tools", [None, TOOLS], ids=["", "tools"])
@pytest.mark.parametrize("add_generation_prompt", [True, False])
@pytest.mark.parametrize("conversation", CONVERSATIONS)
@pytest.mark.parametrize("name", TEMPLATES)
def test_same_prompt_as_transformers(name: str, conversation: str, add_generation_prompt: bool, tools: Any) -> None:
    options = {"add_generation_prompt": add_generation_prompt, "tools": tools}
    template = ChatTemplate({"default": TEMPLATES[name]}, SPECIAL)
    try:
        expected = reference(TEMPLATES[name], CONVERSATIONS[conversation], **options)
    except jinja2.TemplateError as error:
        with pytest.raises(ChatTemplateError, match=f"refuses these messages: {error}"):
            template.render(CONVERSATIONS[conversation], **options)
    else:
        if tools is not None and name in ("llama3", "gemma"):  # which do not read them
            with pytest.raises(ChatTemplateError, match="leaves the tools out of this chat: 1 were given"):
                template.render(CONVERSATIONS[conversation], **options)
            options["tools"] = None
        assert template.render(CONVERSATIONS[conversation], **options) == expected


@pytest.mark.parametrize("last", ["The sky is", " The sky is ", "The sky is\n"])
@pytest.mark.parametrize("name", ["chatml", "llama3", "gemma"])
def test_the_last_message_continued(name: str, last: str) -> None:
    messages = [USER, {"role": "assistant", "content": last}]
    options = {"add_generation_prompt": False, "continue_final_message": True}
    expected = reference(TEMPLATES[name], messages, **options)
    assert ChatTemplate({"default": TEMPLATES[name]}, SPECIAL).render(messages, **options) == expected
    assert expected.rstrip().endswith("The sky is")


def test_the_last_message_in_parts_continued() -> None:
    template = "{% for m in messages %}{% for p in m.content %}<{{ p.text or p.type }}>{% endfor %}{% endfor %}"
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}, {"type": "citation"}]
    messages = [{"role": "assistant", "content": parts}]
    assert ChatTemplate({"default": template}, {}).render(messages, continue_final_message=True) == "<a><b"
    assert parts[1]["text"] == "b"  # the caller's messages stay as they are


def in_parts(*texts: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": text} for text in texts]


@pytest.mark.parametrize("name", TEMPLATES)
def test_parts_are_lines_of_a_template_that_takes_texts(name: str) -> None:
    template = ChatTemplate({"default": TEMPLATES[name]}, SPECIAL)
    messages = [{"role": "user", "content": in_parts("Hi", "there")}, {"role": "assistant", "content": "Yes?"}]
    lines = [{"role": "user", "content": "Hi\nthere"}, messages[1]]
    assert template.render(messages) == template.render(lines)
    assert template.render(messages, continue_final_message=True, add_generation_prompt=False).endswith("Yes?")


@pytest.mark.parametrize("part", [{"text": "Hi", "at": object()}, MappingProxyType({"text": "Hi"})])
def test_parts_that_are_no_json_are_texts(part: Any) -> None:
    template = ChatTemplate({"default": TEMPLATES["chatml"]}, SPECIAL)
    plain = template.render([{"role": "user", "content": "Hi"}])
    assert template.render([{"role": "user", "content": [part]}]) == plain


def test_parts_are_parts_of_a_template_that_loops_over_them() -> None:
    source = "{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}{% for p in m.content %}<{{ p.text }}>{% endfor %}{% endif %}{% endfor %}"  # noqa: E501
    template = ChatTemplate({"default": source}, {})
    assert template.render([{"role": "user", "content": in_parts("a", "b")}]) == "<a><b>"
    assert template.render([{"role": "user", "content": "{'type': 'text', 'text': 'a'}"}]).startswith("{")


LOOP = "{% for p in m.content %}{% if p.type == 'image' %}<image>{% elif p.type == 'text' %}{{ p.text }}{% endif %}"
OF_IMAGES = {
    "a loop": f"{{% for m in messages %}}{{{{ m.role }}}}: {LOOP}{{% endfor %}}.{{% endfor %}}",
    "a filter": "{% for m in messages %}{{ m.role }}: {% for p in m.content | selectattr('type', 'equalto', 'text') %}"
    "{{ p.text }}{% endfor %}.{% endfor %}",
    "an error": "{% for m in messages %}{% if m.content is string %}{{ raise_exception('parts') }}{% endif %}"
    f"{{{{ m.role }}}}: {LOOP}{{% endfor %}}.{{% endfor %}}",
}


@pytest.mark.parametrize("name", OF_IMAGES)
def test_texts_in_one_piece_reach_a_template_that_knows_parts_alone(name: str) -> None:
    template = ChatTemplate({"default": OF_IMAGES[name]}, {})
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": " Hi"}]
    assert template.render(chat) == "system: Be brief..user:  Hi."
    continued = [*chat, {"role": "assistant", "content": "Well"}]
    assert template.render(continued, continue_final_message=True) == "system: Be brief..user:  Hi.assistant: Well"


def test_a_template_that_leaves_texts_out_and_refuses_chats_does_so_still() -> None:
    last = ChatTemplate({"default": "{{ messages[-1].content }}"}, {})
    assert last.render([{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]) == "b"
    refusing = ChatTemplate({"default": "{{ raise_exception('no roles') }}"}, {})
    with pytest.raises(ChatTemplateError, match="refuses these messages: no roles"):
        refusing.render([{"role": "user", "content": "a"}])


@pytest.mark.parametrize("kind", ["image", "image_url", "input_audio", "video"])
def test_parts_that_are_no_text_are_refused_by_name(kind: str) -> None:
    messages = [{"role": "user", "content": [*in_parts("What is this?"), {"type": kind, kind: "x.png"}]}]
    with pytest.raises(InputError, match=rf"messages\[0\].content\[1\] is a part of type '{kind}'"):
        ChatTemplate({"default": CHATML}, {}).render(messages)


def test_what_is_none_is_left_out_and_reasoning_has_each_of_its_names() -> None:
    template = ChatTemplate({"default": "{% for m in messages %}{{ m | tojson }}{% endfor %}"}, {})
    message = {"role": "assistant", "content": "a", "tool_calls": None, "reasoning": "r"}
    assert json.loads(template.render([message])) == {
        "thinking": "r", "role": "assistant", "content": "a", "reasoning": "r", "reasoning_content": "r",
    }  # fmt: skip
    shown = ChatTemplate({"default": "{% for m in messages %}{{ m.reasoning_content }}{% endfor %}"}, {})
    assert shown.render([message], continue_final_message="reasoning") == "r"


REAL = Path(__file__).parents[2] / "parity" / "templates"
ARGUMENTS = {"a": 1, "b": ["é <x>", None], "c": {}}


def call(arguments: Any) -> dict[str, Any]:
    return {"id": "abcdefghi", "type": "function", "function": {"name": "add", "arguments": arguments}}


@pytest.mark.parametrize("name", ["tools-in-tags", "functions-by-hand", "headers", "inst", "json-in-many-ways"])
def test_arguments_in_a_text_are_the_objects_that_templates_expect(name: str) -> None:
    template = ChatTemplate({"default": (REAL / f"{name}.jinja").read_text()}, SPECIAL)
    as_objects, as_texts = (
        template.render(
            [
                USER,
                {"role": "assistant", "content": "", "tool_calls": [call(arguments)]},
                {"role": "tool", "content": str(ARGUMENTS), "tool_call_id": "abcdefghi"},
            ],
            tools=TOOLS,
            date_string="today",
        )
        for arguments in (ARGUMENTS, json.dumps(ARGUMENTS))
    )
    assert as_texts == as_objects
    assert as_texts.count("é <x>") >= 2


@pytest.mark.parametrize(
    "shown", ["{{ 'f(' + c.arguments + ')' }}", "f({{ c.arguments }})"], ids=["adds texts, as DeepSeek's", "prints"]
)
def test_arguments_in_a_text_stay_one_where_a_template_takes_texts(shown: str) -> None:
    source = "{% for call in messages[0].tool_calls %}{% set c = call.function %}" + shown + "{% endfor %}"
    template = ChatTemplate({"default": source}, {})
    messages = [{"role": "assistant", "tool_calls": [call('{"a":  1}'), call("no JSON"), call("[1]"), call("{}")]}]
    assert template.render(messages) == 'f({"a":  1})f(no JSON)f([1])f({})'
    assert messages[0]["tool_calls"][0]["function"]["arguments"] == '{"a":  1}'  # the caller's stay as they are


def test_python_functions_are_tools() -> None:
    def add(a: int) -> int:
        """Adds.

        Args:
            a: A number
        """
        return a

    template = ChatTemplate({"default": "{{ tools | tojson }}"}, {})
    (tool,) = json.loads(template.render([USER], tools=[add]))
    assert tool["function"]["parameters"]["required"] == ["a"]


def test_documents_are_objects() -> None:
    with pytest.raises(InputError, match="expected a list of objects with 'title' and 'text'"):
        ChatTemplate({"default": CHATML}, {}).render([USER], documents=["text"])


def test_special_tokens_of_other_names_and_of_the_older_file(tmp_path: Path) -> None:
    config = {
        "chat_template": "{{ bos_token }}{{ image_token }}{{ call_token }}",
        "bos_token": "<a>",
        "call_token": "<call>",
        "add_bos_token": True,
        "extra_special_tokens": {"image_token": "<image>"},
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "special_tokens_map.json").write_text(json.dumps({"bos_token": {"content": "<b>"}}))
    assert ChatTemplate.from_package(tmp_path).render([USER]) == "<b><image><call>"
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**config, "added_tokens_decoder": {}}))
    assert ChatTemplate.from_package(tmp_path).render([USER]) == "<a><image><call>"


def test_nothing_to_continue() -> None:
    template = ChatTemplate({"default": "{{ messages[0].content }}"}, {})
    with pytest.raises(InputError, match="there is no text in the last message to continue"):
        template.render([{"role": "assistant", "content": None}], continue_final_message=True)
    with pytest.raises(ChatTemplateError, match="leaves the end of the last message out"):
        template.render([USER, {"role": "assistant", "content": "So"}], continue_final_message=True)


def test_variables_of_the_template() -> None:
    template = ChatTemplate({"default": LLAMA3}, SPECIAL)
    expected = reference(LLAMA3, [USER], date_string="today", add_generation_prompt=True)
    assert template.render([USER], date_string="today") == expected


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ("Hi", "messages must be a list .* found str"),
        ({"role": "user"}, "found dict"),
        ([], "messages is empty"),
        (["Hi"], r"messages\[0\] is 'Hi', expected an object"),
        ([{"content": "Hi"}], r"messages\[0\] is"),
        ([USER, {"role": "user"}], r"messages\[1\] has neither 'content' nor 'tool_calls'"),
        ([{"role": "user", 7: "Hi"}], "only role, 7"),
        ([{"role": "user", "content": "\ud800"}], "lone surrogate"),
    ],
)
def test_messages_that_are_none(messages: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ChatTemplate({"default": CHATML}, SPECIAL).render(messages)


def test_templates_that_fail() -> None:
    with pytest.raises(ChatTemplateError, match="is not valid Jinja"):
        ChatTemplate({"default": "{% for %}"}, {}).render([USER])
    with pytest.raises(ChatTemplateError, match=r"failed on these messages: .*undefined"):
        ChatTemplate({"default": "{{ nothing.here.at_all }}"}, {}).render([USER])
    with pytest.raises(ChatTemplateError, match="has no chat template"):
        ChatTemplate({}, {}).render([USER])


def test_named_templates(tmp_path: Path) -> None:
    named = [{"name": "default", "template": "plain"}, {"name": "tool_use", "template": "tools"}]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": named}))
    template = ChatTemplate.from_package(tmp_path)
    assert template.render([USER]) == "plain"
    assert template.source(tools=TOOLS) == "tools"
    assert template.source() == "plain"
    assert template.render([USER], template="tool_use") == "tools"
    with pytest.raises(ChatTemplateError, match="leaves the tools out"):
        template.render([USER], tools=TOOLS)
    assert template.render([USER], tools=[]) == "tools"
    with pytest.raises(ChatTemplateError, match="did you mean 'tool_use'"):
        template.render([USER], template="tool_uses")


def test_the_file_wins_and_special_tokens_may_be_objects(tmp_path: Path) -> None:
    config = {
        "chat_template": "old",
        "bos_token": {"content": "<s>", "special": True},
        "eos_token": "</s>",
        "unk_token": None,
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "chat_template.jinja").write_text("{{ bos_token }}{{ eos_token }}{{ unk_token }}")
    assert ChatTemplate.from_package(tmp_path).render([USER]) == "<s></s>"

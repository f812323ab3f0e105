"""Chat templates in the styles of known models, rendered as both versions of transformers render them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import tokenizers

import tools_of_tests
from edgellm.errors import ChatTemplateError, EdgellmError
from edgellm.text.chat import ChatTemplate

pytestmark = pytest.mark.parity

HERE = Path(__file__).parent
TEMPLATES = {file.stem: file for file in sorted((HERE / "templates").glob("*.jinja"))}
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "call_token": "<call>", "pad_token": None}
CONFIG = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    **SPECIAL,
    "additional_special_tokens": ["<more>"],
    "extra_special_tokens": {"image_token": "<image>"},
    "added_tokens_decoder": {},
}


def said(role: str, content: Any, **others: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **others}


def part(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


CALL = {"id": "abcdefghi", "type": "function", "function": {"name": "add", "arguments": {"a": 1, "b": "é <x>"}}}
SYSTEM, USER, ANSWER, NEXT = (
    said("system", "  Be brief. \n"), said("user", " What's 1 + 1 < 3?\n"), said("assistant", "Two & \"more\"\n"),
    said("user", "Und 2 + 2? 你好"),
)  # fmt: skip
CONVERSATIONS: Mapping[str, Sequence[dict[str, Any]]] = {
    "one": [USER],
    "system": [SYSTEM, USER],
    "turns": [USER, ANSWER, NEXT],
    "system and turns": [SYSTEM, USER, ANSWER, NEXT],
    "answered": [USER, ANSWER],
    "two of one role": [USER, NEXT],
    "begun by the assistant": [ANSWER, NEXT],
    "empty texts": [said("system", ""), said("user", "")],
    "thoughts in the text": [USER, said("assistant", "<think>\nhmm\n</think>\n\nTwo"), NEXT],
    "reasoning": [USER, said("assistant", "Two", reasoning_content="hmm"), NEXT],
    "calls": [SYSTEM, USER, said("assistant", "", tool_calls=[CALL]), said("tool", "2", tool_call_id="abcdefghi")],
    "calls and an answer": [
        USER, said("assistant", "I add.", tool_calls=[CALL]), said("tool", "2", tool_call_id="abcdefghi", name="add"),
        said("assistant", "It is 2."), NEXT,
    ],
    "two calls": [USER, said("assistant", "", tool_calls=[CALL, CALL]), said("tool", "2", tool_call_id="abcdefghi")],
    "results as objects": [USER, said("assistant", "", tool_calls=[CALL]), said("tool", {"sum": 2}, tool_call_id="a")],
    "an unknown role": [USER, said("critic", "No.")],
    "names and more": [said("user", "Hi", name="Ann", extra={"b": [1, None, 2.5], "a": True})],
    "many": [USER, ANSWER] * 4,
}  # fmt: skip
ARGUMENTS: Mapping[str, dict[str, Any]] = {
    "prompted": {"add_generation_prompt": True},
    "as it is": {},
    "continued": {"continue_final_message": True},
    "with tools": {"add_generation_prompt": True, "tools": ["add", "weather"]},
    "with schemas": {"tools": [{"name": "f", "parameters": {}}, {"type": "function", "function": {"name": "g"}}]},
    "with documents": {"add_generation_prompt": True, "documents": [{"title": "T", "text": "x"}, {"a": 1}]},
    "with variables": {
        "add_generation_prompt": True, "enable_thinking": False, "date_string": "1 Jan", "thinking": True,
        "today": "Monday", "levels": ["a", "b"], "builtin_tools": ["x", "y"],
    },
}  # fmt: skip
USUAL = {"date_string": "26 Jul 2024"}  # not the day of the test
# What transformers 5 does: reasoning has each of its names; templates know tokens of any name that ends in _token, and
# no list of others; and a text can only be continued where the template names it.
NEW_IN_5 = [("*", "reasoning", "*"), ("special-tokens", "*", "*"), ("json-in-many-ways", "*", "continued")]


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A directory with a tokenizer for each template."""
    out = tmp_path_factory.mktemp("templates")
    vocabulary = {token: i for i, token in enumerate(["<unk>", "<s>", "</s>", "<call>", "<more>", "<image>"])}
    for name, file in TEMPLATES.items():
        (out / name).mkdir()
        tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, "<unk>")).save(str(out / name / "tokenizer.json"))
        (out / name / "tokenizer_config.json").write_text(json.dumps(CONFIG))
        (out / name / "chat_template.jinja").write_bytes(file.read_bytes())
    return lambda name: out / name


def cases() -> Iterator[tuple[str, str, str]]:
    for template in TEMPLATES:
        for conversation in CONVERSATIONS:
            for arguments in ARGUMENTS:
                yield template, conversation, arguments


def rendered(python: str, asked: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    command = [python, str(HERE / "rendering.py")]
    done = subprocess.run(command, input=json.dumps(asked), capture_output=True, text=True, check=True)
    answers: list[dict[str, str]] = json.loads(done.stdout)
    return answers


def in_parts(template: str, messages: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
    """What transformers is asked: a template that reads parts alone leaves a plain text out there, and has it as a part
    here."""
    if template != "parts-alone":
        return messages
    return [
        {**message, "content": [{"type": "text", "text": message["content"]}]}
        if isinstance(message.get("content"), str)
        else message
        for message in messages
    ]


opened = cache(ChatTemplate.from_package)


def ours(directory: Path, messages: Sequence[dict[str, Any]], arguments: Mapping[str, Any]) -> dict[str, str]:
    """Tools that a template does not read are an error here, and none there."""
    given = {"add_generation_prompt": False, **arguments}
    given["tools"] = tools_of_tests.resolved(given.get("tools"))
    template = opened(directory)
    try:
        return {"text": template.render(messages, **given)}
    except EdgellmError as error:
        if "leaves the tools out" not in str(error):
            return {"error": str(error)}
    given["template"] = "tool_use" if "tool_use" in template.names else None
    return {"text": template.render(messages, **{**given, "tools": None})}


@pytest.mark.parametrize("version", ["4", "5"])
def test_chats_are_rendered_as_in_transformers(
    version: str, python: Callable[[str], str], directories: Callable[[str], Path]
) -> None:
    """Where one of both refuses a chat, so does the other."""
    named = list(cases())
    asked = [
        {"tokenizer": str(directories(template)), "messages": in_parts(template, CONVERSATIONS[conversation]),
         "arguments": {**USUAL, **ARGUMENTS[arguments]}}
        for template, conversation, arguments in named
    ]  # fmt: skip
    wrong, texts = [], 0
    for name, case, theirs in zip(named, asked, rendered(python(version), asked), strict=True):
        if version == "4" and any(all(map(fnmatchcase, name, pattern)) for pattern in NEW_IN_5):
            continue
        found = ours(directories(name[0]), CONVERSATIONS[name[1]], case["arguments"])
        texts += "text" in found
        if found.get("text") != theirs.get("text"):
            wrong.append(f"{name}\n  {found}\n  {theirs}")
    assert not wrong, f"{len(wrong)} of {len(named)}\n" + "\n".join(wrong[:5])
    assert texts > len(named) / 2


IN_PARTS = {
    "one": [said("user", [part("Hi there")])],
    "several": [said("user", [part("Hi"), part(" there")]), said("assistant", [part("Yes?")]), said("user", "So")],
    "system": [said("system", [part("Be brief.")]), said("user", [part("Hi")])],
}


def test_parts_are_given_to_templates_that_know_them_and_their_lines_to_others(
    python: Callable[[str], str], directories: Callable[[str], Path]
) -> None:
    """transformers gives them as they are to every template: an error, or an object of Python's in the prompt."""
    asked = [
        {"tokenizer": str(directories(name)), "messages": messages, "arguments": USUAL}
        for name in TEMPLATES
        for messages in IN_PARTS.values()
    ]
    knowing = set()
    for case, theirs in zip(asked, rendered(python("5"), asked), strict=True):
        directory = Path(case["tokenizer"])
        found = ours(directory, case["messages"], case["arguments"])
        in_lines = ours(directory, list(map(in_lines_of, case["messages"])), case["arguments"])
        text = theirs.get("text", "")
        if "Hi" in text and "'text'" not in text and '"text"' not in text:
            knowing.add(directory.name)
            assert found == theirs
        else:
            assert found.get("text") == in_lines.get("text")
    assert {"turns-of-parts", "parts-alone"} <= knowing
    assert "chatml" not in knowing


def in_lines_of(message: dict[str, Any]) -> dict[str, Any]:
    content = message["content"]
    return message if isinstance(content, str) else {**message, "content": "\n".join(p["text"] for p in content)}


@pytest.mark.parametrize("version", ["4", "5"])
def test_python_functions_are_the_same_tools(version: str, python: Callable[[str], str], tmp_path: Path) -> None:
    from edgellm.text.tools import function_schema

    program = (
        "import json, tools_of_tests as t; from transformers.utils import get_json_schema as schema; "
        "print(json.dumps([schema(t.add), schema(t.weather)]))"
    )
    done = subprocess.run([python(version), "-c", program], cwd=HERE, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [function_schema(tools_of_tests.add), function_schema(tools_of_tests.weather)]


SEVERAL = [{"name": name, "template": name[0].upper()} for name in ("default", "rag", "tool_use")]
PLACES: Mapping[str, Mapping[str, Any]] = {
    "a file": {"chat_template.jinja": "file"},
    "the config": {"tokenizer_config.json": {"chat_template": "config"}},
    "a file and the config": {"chat_template.jinja": "file", "tokenizer_config.json": {"chat_template": "config"}},
    "several in the config": {"tokenizer_config.json": {"chat_template": SEVERAL}},
    "several in files": {
        "chat_template.jinja": "file", "additional_chat_templates/tool_use.jinja": "T",
        "additional_chat_templates/rag.jinja": "R",
    },
    "only others in files": {
        "additional_chat_templates/rag.jinja": "R", "tokenizer_config.json": {"chat_template": "C"},
    },
    "a processor's file beside the config": {
        "chat_template.json": {"chat_template": "P"}, "tokenizer_config.json": {"chat_template": "config"},
    },
    "none": {},
}  # fmt: skip


@pytest.mark.parametrize("version", ["4", "5"])
def test_templates_are_found_where_transformers_finds_them(
    version: str, python: Callable[[str], str], directories: Callable[[str], Path], tmp_path: Path
) -> None:
    chosen: list[dict[str, Any]] = [{}, {"chat_template": "rag"}, {"tools": ["add"]}]
    asked = []
    for name, files in PLACES.items():
        (tmp_path / name / "additional_chat_templates").mkdir(parents=True)
        (tmp_path / name / "tokenizer.json").write_bytes((directories("chatml") / "tokenizer.json").read_bytes())
        for file, content in {"tokenizer_config.json": {}, **files}.items():
            text = (
                content
                if isinstance(content, str)
                else json.dumps({**CONFIG, **content} if "config" in file else content)
            )
            (tmp_path / name / file).write_text(text)
        asked += [{"tokenizer": str(tmp_path / name), "messages": [USER], "arguments": each} for each in chosen]
    for case, theirs in zip(asked, rendered(python(version), asked), strict=True):
        arguments = {"template" if k == "chat_template" else k: v for k, v in case["arguments"].items()}
        found = ours(Path(case["tokenizer"]), case["messages"], arguments)
        one = arguments.get("template") == "rag" and theirs.get("text") == "rag"  # taken for a template's own text
        assert found.get("text") == (None if one else theirs.get("text")), (case, theirs, found)


def test_a_template_that_leaves_the_last_message_out_cannot_be_continued() -> None:
    template = ChatTemplate({"default": "{% for m in messages %}{{ m.content[:3] }}{% endfor %}"}, {})
    with pytest.raises(ChatTemplateError, match="leaves the end of the last message out"):
        template.render([USER], continue_final_message=True, add_generation_prompt=False)

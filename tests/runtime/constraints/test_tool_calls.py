"""Calls that are held to schemas: in every format, what a grammar lets a model write is read as calls that validate."""

from __future__ import annotations

import contextlib
import json
import random
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jsonschema
import pytest
import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers

import json_schemas as made
from edgellm.constraints import Constraints
from edgellm.decoding import GenerationOptions
from edgellm.errors import OptionError
from edgellm.text.answers import AnswerFormat, AnswerParts, ToolCall, ToolChoice, answer_of
from edgellm.text.tokenizer import Detokenizer, Tokenizer

# What the templates of each family say, the end of a prompt, and the markers that are special tokens there.
FORMATS: Mapping[str, tuple[str, str, list[str]]] = {
    "hermes": ('{# tools <tool_call> {"name": , "arguments": } #}', "<|im_start|>assistant\n", []),
    "qwen3-thinks": ('<tool_call> "arguments" <think></think>', "<|im_start|>assistant\n", []),
    "qwen3-opened": ('<tool_call> "arguments" <think></think>', "<|im_start|>assistant\n<think>\n", ["<think>"]),
    "coder": ("<tool_call> <function=", "<|im_start|>assistant\n", []),
    "mistral": ("[TOOL_CALLS]", "[/INST]", ["[TOOL_CALLS]"]),
    "mistral-args": ("[TOOL_CALLS][ARGS][THINK]", "[/INST]", ["[TOOL_CALLS]", "[ARGS]", "[THINK]", "[/THINK]"]),
    "lfm2": ("<|tool_call_start|>", "", ["<|tool_call_start|>", "<|tool_call_end|>"]),
    "lfm2-text": ("<|tool_list_start|>", "", []),
    "gemma-4": ("<|tool_call> <|channel>thought", "", ["<|tool_call>", "<tool_call|>", '<|"|>', "<|channel>"]),
    "function-gemma": ("<start_function_call>", "", ["<escape>"]),
    "deepseek": ("<｜tool▁calls▁begin｜>", "", ["<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>"]),
    "deepseek-fenced": ("<｜tool▁calls▁begin｜>```json", "", ["<｜tool▁calls▁end｜>", "<｜tool▁call▁end｜>"]),
    "phi": ("<|tool_call|><|/tool_call|>", "", ["<|tool_call|>", "<|/tool_call|>"]),
    "granite": ("<|tool_call|>", "", ["<|tool_call|>"]),
    "nemotron": ("<TOOLCALL>", "", []),
    "llama": ('tools <|python_tag|> "parameters"', "", ["<|python_tag|>"]),
    "tool-code": ("tool_code", "", []),
    "bare": ("tools", "", []),
    "harmony": ("<|channel|><|message|>", "<|start|>assistant", ["<|start|>", "<|channel|>", "<|message|>", "<|end|>"]),
    "harmony-inside": ("<|channel|><|message|>", "<|start|>assistant<|channel|>analysis<|message|>So", []),
}  # fmt: skip
CONSTRAINTS: dict[str, Constraints] = {name: Constraints() for name in FORMATS}
MOST_TOKENS = 3000


def tokenizer_of(name: str) -> Tokenizer:
    alphabet = {token: i for i, token in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    found = tokenizers.Tokenizer(models.BPE(vocab=alphabet, merges=[]))
    found.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    found.decoder = decoders.ByteLevel()
    found.add_special_tokens([AddedToken(token, special=True) for token in ["<|eos|>", *FORMATS[name][2]]])
    return Tokenizer(found)


TOKENIZERS = {name: tokenizer_of(name) for name in FORMATS}


class Writer:
    """A model that says anything that it may."""

    def __init__(self, name: str, tools: list[Any], seed: int, **given: Any) -> None:
        self.name, self.tools, self.rng = name, tools, random.Random(seed)
        template, self.prompt, _ = FORMATS[name]
        self.form, self.tokenizer = AnswerFormat.of(template), TOKENIZERS[name]
        choice = ToolChoice.read(tools, given.get("tool_choice"), given.get("parallel_tool_calls", True))
        special = self.tokenizer.special_texts()
        grammar = self.form.grammar(choice, prompt=self.prompt, special=special, content=given.get("content"))
        constraint = CONSTRAINTS[name].of(GenerationOptions.create(grammar=grammar), self.tokenizer, 300)
        assert constraint is not None
        self.state = constraint.begin()
        self.tokens: list[int] = []

    def say(self, text: str) -> None:
        for token in self.tokenizer.encode(text).tolist():
            assert self.state.allowed()[token], f"{text!r} behind {self.tokenizer.decode(self.tokens)!r}"
            self._advance(token)

    def go_on(self) -> AnswerParts:
        """To an end that the text may have."""
        while not (self.state.may_end and (self.rng.random() < 0.5 or not self.state.may_go_on)):
            assert len(self.tokens) < MOST_TOKENS, self.text
            tokens = self.state.allowed().nonzero()[0].tolist()
            assert tokens, self.text
            end = self.tokenizer.encode("\n</parameter>").tolist()
            if len(tokens) > 80 and self.rng.random() < 0.2 and self.state.accepted(end) == len(end):
                self.say("\n</parameter>")
            else:
                self._advance(self.rng.choice(self._usual(tokens)))
        return self.answer()

    def _usual(self, tokens: list[int]) -> list[int]:
        """Where nearly all may come: an end of what is written, more often than not, so that texts are short."""
        if len(tokens) < 80:
            return tokens
        letters = self.tokenizer.encode("ab{\"'\\<é").tolist()
        ends = self.tokenizer.encode('"\n<').tolist()
        return [token for token in tokens if token in letters + ends * 4] or tokens

    def _advance(self, token: int) -> None:
        self.state.advance(token)
        self.tokens.append(token)

    @property
    def text(self) -> str:
        return self.tokenizer.decode(self.tokens, skip_special_tokens=False)

    def answer(self) -> AnswerParts:
        found = []
        for streams in (False, True):
            parser = self.form.parser(tools=self.tools, prompt=self.prompt, stream_arguments=streams)
            detokenizer = Detokenizer(self.tokenizer, keep=parser.markers)
            events = [event for token in self.tokens for event in parser.add(detokenizer.add(token))]
            parts = answer_of([*events, *parser.add(detokenizer.flush()), *parser.finish()])
            found.append(
                (parts.content, parts.reasoning, [(c.name, json.loads(c.arguments)) for c in parts.tool_calls])
            )
        assert found[0] == found[1]
        return parts


def function(name: str, parameters: Any, **more: Any) -> Any:
    return {"type": "function", "function": {"name": name, "parameters": parameters, **more}}


def schema(rng: random.Random) -> Any:
    """Of arguments: what all formats can say."""
    short = {"type": "string", "maxLength": 9}
    of_format = {"type": "string", "pattern": rng.choice(made.PATTERNS[:-1]), "maxLength": 12}
    kinds: list[Any] = [
        made.text, made.integer, made.number, made.enum, made.array, made.nested, made.table, made.nullable,
        lambda _: short, lambda _: of_format, lambda _: {"type": ["string", "null"], "maxLength": 4},
        lambda _: {"$ref": "#/$defs/color"}, lambda _: {"anyOf": [{"type": "boolean"}, {"$ref": "#/$defs/color"}]},
        lambda _: {"type": "array", "items": short, "maxItems": 3}, lambda _: {"type": "boolean", "description": "("},
        lambda _: {"type": "integer"}, lambda _: {"type": "number"}, lambda _: {"const": "x"},
    ]  # fmt: skip
    found = made.record(rng, lambda rng: rng.choice(kinds)(rng))
    return {**found, "$defs": {"color": {"enum": ["red", "1"], "type": "string"}}}


def check(calls: Sequence[ToolCall], tools: list[Any]) -> None:
    schemas = {tool["function"]["name"]: tool["function"]["parameters"] for tool in tools}
    for call in calls:
        jsonschema.validate(json.loads(call.arguments), schemas[call.name])


THOUGHTS = {
    "qwen3-thinks": "<think>\nhm <tool_call>{}</tool_call></think>\n\n",
    "mistral-args": "[THINK]Hm.[/THINK]",
    "gemma-4": "<|channel>thought\nHm.<channel|>",
    "harmony": "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant",
}
OPENED = {"qwen3-opened": "so</think>", "harmony-inside": " it is<|end|><|start|>assistant"}


def begin_calls(writer: Writer) -> None:
    """So that it does not think all of its tokens."""
    writer.say(OPENED.get(writer.name, ""))
    thinks = writer.name in THOUGHTS and writer.rng.random() < 0.5
    writer.say(THOUGHTS[writer.name] if thinks else "")
    written = writer.form.written
    if written is None:
        starts = ["<|channel|>commentary to=functions.", " to=functions."]
        writer.say(writer.rng.choice(starts))
    elif not written.is_bare:
        writer.say(written.begin)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("seed", range(6))
def test_forced_calls_are_read_and_validate(name: str, seed: int) -> None:
    rng = random.Random(seed)
    tools = [function(f"tool_{n}", schema(rng)) for n in range(rng.randint(1, 3))]
    writer = Writer(name, tools, seed, tool_choice="required")
    begin_calls(writer)
    parts = writer.go_on()
    assert parts.tool_calls, writer.text
    assert not parts.content, writer.text
    check(parts.tool_calls, tools)


STRICT = function(
    "weather",
    {"type": "object", "properties": {"days": {"enum": [1, 2]}}, "required": ["days"], "additionalProperties": False},
    strict=True,
)
LOOSE = function("note", {"type": "object", "properties": {"text": {"type": "string", "maxLength": 3}}})


@pytest.mark.parametrize("name", FORMATS)
def test_a_text_is_free_until_a_call_begins(name: str) -> None:
    seen = set()
    for seed in range(6):
        writer = Writer(name, [STRICT, LOOSE], seed)
        begin_answer(writer)
        assert writer.state.may_end
        writer.say("Hi { [ < there.")
        assert writer.state.may_end
        if writer.form.is_harmony:
            writer.say("<|end|><|start|>assistant<|channel|>commentary to=functions.")
        elif writer.form.written is not None and writer.form.written.begin:
            writer.say(f"\n{writer.form.written.begin}")
        else:
            continue
        parts = writer.go_on()
        assert parts.tool_calls, writer.text
        assert parts.content == "Hi { [ < there."
        seen |= {call.name for call in parts.tool_calls}
        check([call for call in parts.tool_calls if call.name == "weather"], [STRICT])
    assert seen in ({"weather", "note"}, set())


def begin_answer(writer: Writer) -> None:
    """Where its text begins."""
    writer.say(OPENED.get(writer.name, ""))
    writer.say("<|channel|>commentary<|message|>" if writer.form.is_harmony else "")


@pytest.mark.parametrize("name", ["llama", "bare"])
def test_bare_calls_begin_an_answer(name: str) -> None:
    for seed in range(6):
        writer = Writer(name, [STRICT, LOOSE], seed)
        writer.say('{"name"')
        parts = writer.go_on()
        assert (bool(parts.tool_calls), parts.content) == (True, "")
        check([call for call in parts.tool_calls if call.name == "weather"], [STRICT])
    other = Writer(name, [STRICT], 0)
    other.say('{"nam": 1} [f')
    assert not other.state.allowed()[ord("(")] or other.text.startswith("{")
    assert other.state.may_end


@pytest.mark.parametrize("name", FORMATS)
def test_one_call_at_most(name: str) -> None:
    several = False
    for seed in range(8):
        for parallel in (True, False):
            writer = Writer(name, [STRICT], seed, tool_choice="required", parallel_tool_calls=parallel)
            begin_calls(writer)
            count = len(writer.go_on().tool_calls)
            assert count == 1 or parallel
            several |= count > 1
    assert several or name.startswith("harmony")


@pytest.mark.parametrize("name", FORMATS)
def test_tools_that_are_chosen(name: str) -> None:
    named = {"type": "function", "function": {"name": "note"}}
    allowed = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "note"}]}
    for seed, choice in enumerate([named, {"type": "function", "name": "note"}, allowed] * 2):
        writer = Writer(name, [STRICT, LOOSE], seed, tool_choice=choice)
        begin_calls(writer)
        parts = writer.go_on()
        assert {call.name for call in parts.tool_calls} == {"note"}
        check(list(parts.tool_calls), [LOOSE])


@pytest.mark.parametrize("name", sorted(FORMATS.keys() - {"bare"}))
def test_a_schema_for_the_text_beside_tools(name: str) -> None:
    content = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"], **made.CLOSED}
    for seed in range(4):
        writer = Writer(name, [STRICT], seed, content=content)
        writer.say(OPENED.get(name, "") + "<|channel|>final<|message|>" * writer.form.is_harmony)
        if seed % 2 and not writer.form.is_harmony:
            written = writer.form.written
            assert written is not None
            writer.say(written.begin)
            assert writer.go_on().tool_calls
        else:
            writer.say('{"ok": ')
            jsonschema.validate(json.loads(writer.go_on().content), content)


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("coder", {"properties": {"a": {"type": "string", "format": "date"}}}, "format"),
        ("coder", {"properties": {"a>": {"type": "string"}}}, "none for a tag"),
        ("coder", {"properties": {"a": {"enum": ["</function>"]}}}, "holds a tag"),
        ("coder", {"anyOf": [{"required": ["a"]}]}, "anyOf"),
        ("gemma-4", {"properties": {"a": {"type": "string", "pattern": "^a|b$"}}}, "parentheses"),
        ("lfm2", {"patternProperties": {"^a": {}}}, "patternProperties"),
        ("lfm2", {"properties": {"a": {"$ref": "#/properties/b"}}}, r"\$ref"),
        ("hermes", {"properties": {"a": {"not": {}}}}, "not"),
    ],
)
def test_what_a_format_cannot_say_is_refused(name: str, parameters: Any, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Writer(name, [function("f", {"type": "object", **parameters})], 0, tool_choice="required")


def test_bare_calls_beside_a_schema_for_the_text_are_refused() -> None:
    with pytest.raises(OptionError, match="no marker"):
        Writer("bare", [STRICT], 0, content={})


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ("any", 'expected "auto"'),
        ({"type": "function"}, 'expected "auto"'),
        ({"type": "function", "function": {"name": "wether"}}, "no tool; .*weather"),
        ({"type": "allowed_tools", "mode": "auto", "tools": [1]}, "allows 1"),
    ],
)
def test_choices_that_are_none(choice: Any, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        ToolChoice.read([STRICT], choice)
    with pytest.raises(OptionError, match="no tools"):
        ToolChoice.read(None, "required")
    with pytest.raises(OptionError, match="no JSON schema of an object"):
        ToolChoice.read([function("f", {"type": "array"})], "required")
    with pytest.raises(OptionError, match="no tools"):
        ToolChoice.read([STRICT], {"type": "allowed_tools", "mode": "auto", "tools": []})
    allowed = {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "note"}]}
    limited = ToolChoice.read([LOOSE, function("other", {})], allowed)
    assert (limited.is_constraint, limited.is_forced, [call.name for call in limited.calls]) == (True, False, ["note"])
    assert not ToolChoice.read([STRICT], "none").is_constraint
    assert not ToolChoice.read([LOOSE], "auto").is_constraint


def deep(depth: int) -> Any:
    return {"type": "object", "properties": {"a": deep(depth - 1)}} if depth else {"type": "integer"}


@pytest.mark.parametrize("name", ["hermes", "coder", "lfm2", "gemma-4", "harmony"])
def test_schemas_that_explode_are_refused_in_good_time(name: str) -> None:
    wide = {f"p{i}": {"$ref": "#/$defs/x"} for i in range(300)}
    twice = {"anyOf": [{"$ref": "#/$defs/x"}, {"$ref": "#/$defs/x"}]}
    large = {"enum": [f"value {i}" for i in range(3000)]}
    schemas: list[Any] = [
        deep(400),
        {"type": "object", "properties": wide, "$defs": {"x": large}},
        {"type": "object", "properties": {"a": twice}, "$defs": {"x": twice}},
        {
            "type": "object",
            "properties": {"a": {"type": "array", "items": {"$ref": "#/$defs/x"}}},
            "$defs": {"x": wide},
        },
    ]
    for parameters in schemas:
        started = time.monotonic()
        with contextlib.suppress(OptionError):
            Writer(name, [function("f", parameters)], 0, tool_choice="required")
        read_with(name, [function("f", parameters)])
        assert time.monotonic() - started < 20


def read_with(name: str, tools: list[Any]) -> None:
    """A parser looks at the schemas, too."""
    AnswerFormat.of(FORMATS[name][0]).parser(tools=tools).add("<function=f><parameter=a>1</parameter></function>")

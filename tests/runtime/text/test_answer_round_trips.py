"""What a model has answered, written by its chat template as a message of the past, is read as the same answer."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, pre_tokenizers

from edgellm.text.answers import AnswerFormat, answer_of
from edgellm.text.chat import ChatTemplate
from edgellm.text.tokenizer import Detokenizer, Tokenizer

REAL = Path(__file__).parents[2] / "parity" / "templates"
OURS = Path(__file__).parent / "templates"  # in the way of families that have none there
TEMPLATES: Mapping[str, str] = {
    **{name: (REAL / f"{name}.jinja").read_text() for name in ("tools-in-tags", "headers", "inst")},
    **{file.stem: file.read_text() for file in sorted(OURS.glob("*.jinja"))},
}
ONE_CALL, ONLY_CALLS, NO_THOUGHTS = {"headers"}, {"headers", "inst"}, {"headers", "inst"}
UNSAFE = {"lfm2": "'\\", "tags-for-each": "<"}  # of which their templates write none so that it could be read again
ENDS = re.compile(r"(?:<\|im_end\|>|<\|eot_id\|>|</s>|<turn\|>)\n?\Z")
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "Of a place",
            "parameters": {
                "type": "object",
                "properties": {
                    "place": {"type": "string"}, "days": {"type": "integer"}, "more": {"type": "object"},
                    "exact": {"type": "boolean"}, "list": {"type": "array"}, "rate": {"type": "number"},
                },
            },
        },
    }
]  # fmt: skip
USER = {"role": "user", "content": "Will it rain?"}


def arguments_of(name: str) -> st.SearchStrategy[dict[str, Any]]:
    text = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters=UNSAFE.get(name, "")), max_size=9)
    numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    keys = st.from_regex(r"[a-z]\w{0,5}", fullmatch=True)
    leaves = numbers | text | st.booleans() | st.none()
    nested = st.dictionaries(keys, st.recursive(leaves, lambda inner: st.lists(inner, max_size=3), max_leaves=4))
    every = {"place": text, "days": st.integers(), "more": nested, "exact": st.booleans(), "rate": numbers}
    return st.fixed_dictionaries({}, optional={**every, "list": st.lists(numbers | st.booleans(), max_size=3)})


def call_of(arguments: Any) -> dict[str, Any]:
    return {"id": "abcdefghi", "type": "function", "function": {"name": "weather", "arguments": arguments}}


def written(template: ChatTemplate, message: Mapping[str, Any]) -> tuple[str, str]:
    """The prompt, and the answer without the token at its end."""
    given: dict[str, Any] = {"tools": TOOLS, "date_string": "today"}
    prompt = template.render([USER], **given)
    whole = template.render([USER, message], add_generation_prompt=False, **given)
    assert whole.startswith(prompt)
    return prompt, ENDS.sub("", whole[len(prompt) :])


@pytest.mark.parametrize("as_text", [False, True], ids=["", "as text"])
@pytest.mark.parametrize("name", TEMPLATES)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_calls_that_a_template_writes_are_read_again(name: str, as_text: bool, data: st.DataObject) -> None:
    calls = data.draw(st.lists(arguments_of(name), min_size=1, max_size=1 if name in ONE_CALL else 3))
    made = [call_of(json.dumps(arguments) if as_text else arguments) for arguments in calls]
    content = "" if name in ONLY_CALLS else data.draw(st.sampled_from(["", "I look.", "1 < 2\n\nSo:"]))
    reasoning = None if name in NO_THOUGHTS else data.draw(st.sampled_from([None, "hmm\nso"]))
    template = ChatTemplate({"default": TEMPLATES[name]}, {"bos_token": "<s>", "eos_token": "</s>"})
    message = {"role": "assistant", "content": content, "reasoning_content": reasoning, "tool_calls": made}
    prompt, text = written(template, message)
    step = data.draw(st.integers(1, 20))
    for streams in (False, True):
        parser = AnswerFormat.of(template.source()).parser(tools=TOOLS, prompt=prompt, stream_arguments=streams)
        parts = [text[at : at + step] for at in range(0, len(text), step)]
        answer = answer_of([*(event for part in parts for event in parser.add(part)), *parser.finish()])
        assert [(call.name, json.loads(call.arguments)) for call in answer.tool_calls] == [
            ("weather", c) for c in calls
        ]
        assert (answer.content, answer.reasoning) == (content, reasoning or "")


def tokenizer_with(special: list[str]) -> Tokenizer:
    alphabet = {token: i for i, token in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    made = tokenizers.Tokenizer(models.BPE(vocab=alphabet, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(token, special=True) for token in special])
    return Tokenizer(made)


@pytest.mark.parametrize("name", ["tools-in-tags", "inst", "lfm2", "gemma-4", "gpt-oss", "args"])
def test_markers_that_are_special_tokens_come_through_a_detokenizer(name: str) -> None:
    """Token by token, as a model gives them; the token at the end of the answer has no text."""
    template = ChatTemplate({"default": TEMPLATES[name]}, {"bos_token": "<s>", "eos_token": "</s>"})
    arguments = {"place": "Łódź 🙂", "days": 3}
    thinks = {} if name in NO_THOUGHTS else {"reasoning_content": "hmm"}
    prompt, text = written(template, {"role": "assistant", "content": "", "tool_calls": [call_of(arguments)], **thinks})
    parser = AnswerFormat.of(template.source(tools=TOOLS)).parser(tools=TOOLS, prompt=prompt)
    tokenizer = tokenizer_with([*sorted(parser.markers), "<|im_end|>"])
    detokenizer = Detokenizer(tokenizer, keep=parser.markers)
    events = []
    for token in tokenizer.encode(text + "<|im_end|>").tolist():
        events += parser.add(detokenizer.add(token))
    answer = answer_of([*events, *parser.add(detokenizer.flush()), *parser.finish()])
    assert [(call.name, json.loads(call.arguments)) for call in answer.tool_calls] == [("weather", arguments)]
    assert (answer.content, answer.reasoning) == ("", thinks.get("reasoning_content", ""))

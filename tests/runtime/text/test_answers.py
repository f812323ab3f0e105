"""Answers in the formats of the families, whole and in pieces of any size."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgellm.text.answers import (
    AnswerFormat,
    AnswerParser,
    CallArguments,
    CallBegun,
    Content,
    Event,
    Reasoning,
    answer_of,
)

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "parameters": {
                "type": "object",
                "properties": {
                    "place": {"type": "string"},
                    "days": {"type": "integer"},
                    "more": {"type": "object"},
                    "exact": {"type": "boolean"},
                },
            },
        },
    },
    {"type": "function", "function": {"name": "now", "parameters": {"type": "object", "properties": {}}}},
]
# What a family's template says; the markers alone say which it is.
HERMES = "<tool_call> <think> </think>"
CODER = "<tool_call> <function= </think>"
MISTRAL = "[TOOL_CALLS] [THINK] [/THINK]"
LLAMA = "tools <|python_tag|>"
LFM2 = "<|tool_list_start|> </think>"
GEMMA_3 = "```tool_code"
GEMMA_4 = "<|tool_call> <channel|>"
FUNCTION_GEMMA = "<start_function_call>"
GPT_OSS = "<|channel|> <|message|>"
DEEPSEEK = "<｜tool▁calls▁begin｜> </think>"
PHI = "<|tool_call|>"
BARE = "tools"
FULL = {"place": 'Łódź "<x>"', "days": 3, "more": {"a": [1, None, 2.5], "b": {}}, "exact": True}
FULL_JSON = json.dumps(FULL, ensure_ascii=False)
PYTHON = """weather(place='Łódź "<x>"', days=3, more={"a": [1, None, 2.5], 'b': {}}, exact=True)"""


@dataclass(frozen=True)
class Case:
    template: str
    text: str
    content: str = ""
    reasoning: str = ""
    calls: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    prompt: str = ""


ONE, BOTH = (("weather", FULL),), (("weather", FULL), ("now", {}))
CASES: Mapping[str, Case] = {
    "no call": Case(HERMES, " Two \n", " Two \n"),
    "hermes": Case(HERMES, f'<tool_call>\n{{"name": "weather", "arguments": {FULL_JSON}}}\n</tool_call>', calls=ONE),
    "hermes, all": Case(
        HERMES,
        "<think>\nI must look.\n\n</think>\n\nI look. \n\n"
        f'<tool_call>\n{{"name": "weather", "arguments": {FULL_JSON}}}\n</tool_call>\n'
        '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>\n',
        "I look.", "I must look.", BOTH,
    ),
    "hermes, text around": Case(
        HERMES, 'A\n<tool_call>{"name": "now", "arguments": {}}</tool_call>\n\nB \n', "A\nB", calls=(("now", {}),)
    ),
    "hermes, other order": Case(
        HERMES, f'<tool_call>{{"arguments": {FULL_JSON}, "name": "weather"}}</tool_call>', calls=ONE
    ),
    "hermes, arguments as text": Case(
        HERMES, f'<tool_call>{{"name": "weather", "arguments": {json.dumps(FULL_JSON)}}}</tool_call>', calls=ONE
    ),
    "hermes, the end left out": Case(HERMES, '<tool_call>{"name": "now", "arguments": {}}', calls=(("now", {}),)),
    "hermes, the end in a string": Case(
        HERMES, '<tool_call>{"name": "weather", "arguments": {"place": "a\\"</tool_call>\\\\"}}</tool_call>b', "b",
        calls=(("weather", {"place": 'a"</tool_call>\\'}),),
    ),
    "reasoning opened by the prompt": Case(
        HERMES, "hmm\n</think>\n\nTwo\n", "Two", "hmm", prompt="<|im_start|>assistant\n<think>\n"
    ),
    "reasoning closed by the prompt": Case(HERMES, "Two </think>", "Two </think>", prompt="<think>\n\n</think>\n\n"),
    "reasoning cut off": Case(HERMES, "<think>\nhmm </thi", "", "hmm </thi"),
    "no call in reasoning": Case(
        HERMES, "<think>I call <tool_call>{}</tool_call></think>Two", "Two", "I call <tool_call>{}</tool_call>"
    ),
    "reasoning later is content": Case(HERMES, "Tags: <think>a</think>", "Tags: <think>a</think>"),
    "coder": Case(
        CODER,
        "I look.\n\n<tool_call>\n<function=weather>\n<parameter=place>\nŁódź \"<x>\"\n</parameter>\n<parameter=days>\n"
        '3\n</parameter>\n<parameter=more>\n{"a": [1, null, 2.5], "b": {}}\n</parameter>\n<parameter=exact>\nTrue\n'
        "</parameter>\n</function>\n</tool_call>\n<tool_call>\n<function=now>\n</function>\n</tool_call>",
        "I look.", calls=BOTH,
    ),
    "coder, types": Case(
        CODER,
        "<tool_call><function=weather><parameter=place>\n3\n</parameter><parameter=days>three</parameter>"
        "<parameter=unheard>\n\n4\n\n</parameter></function></tool_call>",
        calls=(("weather", {"place": "3", "days": "three", "unheard": 4}),),
    ),
    "coder, outer tag left out": Case(CODER, "A\n<function=now>\n</function>", "A", calls=(("now", {}),)),
    "functionary": Case(CODER, f"<function=weather>{FULL_JSON}</function>", calls=ONE),
    "mistral, old": Case(
        MISTRAL,
        f'[TOOL_CALLS] [{{"name": "weather", "arguments": {FULL_JSON}, "id": "abcdefghi"}}, '
        '{"name": "now", "arguments": {}, "id": "123456789"}]', calls=BOTH,
    ),
    "mistral, new": Case(
        MISTRAL, f"[THINK]hmm[/THINK]I look.[TOOL_CALLS]weather[ARGS]{FULL_JSON}[TOOL_CALLS]now[ARGS]{{}}",
        "I look.", "hmm", BOTH,
    ),
    "mistral, with ids": Case(
        MISTRAL, f"[TOOL_CALLS]weather[CALL_ID]abcdefghi[ARGS]{FULL_JSON}[TOOL_CALLS]now{{}}", calls=BOTH
    ),
    "llama": Case(LLAMA, f'{{"name": "weather", "parameters": {FULL_JSON}}}', calls=ONE),
    "llama, type first": Case(
        LLAMA, f'{{"type": "function", "name": "weather", "parameters": {FULL_JSON}}}\n', calls=ONE
    ),
    "llama, tag": Case(
        LLAMA, f'<|python_tag|>{{"name": "weather", "parameters": {FULL_JSON}}}; {{"name": "now", "parameters": {{}}}}',
        calls=BOTH,
    ),
    "llama, builtin": Case(LLAMA, '<|python_tag|>weather.call(place="x")', calls=(("weather", {"place": "x"}),)),
    "lfm2": Case(
        LFM2, f"<think>hmm</think>I look.<|tool_call_start|>[{PYTHON}, now()]<|tool_call_end|>", "I look.", "hmm", BOTH
    ),
    "lfm2, json": Case(
        LFM2, f'<|tool_call_start|>[{{"name": "weather", "arguments": {FULL_JSON}}}]<|tool_call_end|>Wait.', "Wait.",
        calls=ONE,
    ),
    "lfm2, escapes": Case(
        LFM2, r"""<|tool_call_start|>[weather(place='it\'s\n\u0142 <|tool_call_end|>')]<|tool_call_end|>""",
        calls=(("weather", {"place": "it's\nł <|tool_call_end|>"}),),
    ),
    "lfm2, a quote as it is": Case(
        LFM2, "<|tool_call_start|>[weather(place='it's \"here\"')]<|tool_call_end|>Wait.", "Wait.",
        calls=(("weather", {"place": 'it\'s "here"'}),),
    ),
    "a call behind a broken one": Case(
        HERMES, '<tool_call>{"name": "now}</tool_call>\n<tool_call>{"name": now", "arguments": {}}</tool_call>'
        '<tool_call>{"name": "now", "arguments": {}}</tool_call>',
        '<tool_call>{"name": "now}</tool_call>\n<tool_call>{"name": now", "arguments": {}}</tool_call>',
        calls=(("now", {}),),
    ),
    "gemma 3": Case(GEMMA_3, f"I look.\n```tool_code\n{PYTHON}\nprint(now())\n```", "I look.", calls=BOTH),
    "gemma 3, bare list": Case(BARE, f"[{PYTHON}, now()]\n", calls=BOTH),
    "gemma 3, bare json": Case(BARE, f'{{"name": "weather", "parameters": {FULL_JSON}}}', calls=ONE),
    "gemma 4": Case(
        GEMMA_4,
        '<|channel>thought\nhmm\n<channel|><|tool_call>call:weather{days:3,exact:true,more:{a:[1,null,2.5],b:{}},place:'
        '<|"|>Łódź "<x>"<|"|>}<tool_call|><|tool_call>call:now{}<tool_call|>',
        "", "hmm", BOTH,
    ),
    "function gemma": Case(
        FUNCTION_GEMMA,
        "<start_function_call>call:weather{place:<escape>}{ it's<escape>,days:3}<end_function_call>",
        calls=(("weather", {"place": "}{ it's", "days": 3}),),
    ),
    "gpt-oss": Case(
        GPT_OSS,
        "<|channel|>analysis<|message|>hmm\n<|end|><|start|>assistant<|channel|>analysis<|message|>So.<|end|>"
        "<|start|>assistant<|channel|>commentary<|message|>I look.<|end|>"
        "<|start|>assistant<|channel|>commentary to=functions.weather <|constrain|>json<|message|>"
        f"{FULL_JSON} <|call|>",
        "I look.", "hmm\nSo.", ONE, "<|start|>assistant",
    ),
    "gpt-oss, recipient first": Case(
        GPT_OSS,
        f" to=functions.weather<|channel|>commentary json<|message|>{FULL_JSON}<|call|>"
        "<|start|>assistant to=functions.now<|channel|>commentary json<|message|>{}",
        calls=BOTH,
    ),
    "gpt-oss, final": Case(GPT_OSS, "<|channel|>final<|message|>Two < three.<|return|>", "Two < three."),
    "gpt-oss, no marks": Case(GPT_OSS, "to be <|or|> not", "to be <|or|> not"),
    "gpt-oss, continued": Case(
        GPT_OSS, " is blue.", " is blue.", prompt="<|start|>assistant<|channel|>final<|message|>It"
    ),
    "gpt-oss, cut off": Case(GPT_OSS, "<|channel|>analysis<|message|>hmm<|end|><|start|>assis", "", "hmm"),
    "deepseek r1": Case(
        DEEPSEEK,
        "hmm</think>I look.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n```json\n"
        f"{FULL_JSON}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>now\n```json\n{{}}\n```"
        "<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        "I look.", "hmm", BOTH, "<｜Assistant｜><think>\n",
    ),
    "deepseek 3.1": Case(
        DEEPSEEK,
        f"<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>weather<｜tool▁sep｜>{FULL_JSON}<｜tool▁call▁end｜>"
        "<｜tool▁call▁begin｜>now<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        calls=BOTH,
    ),
    "phi": Case(PHI, f'<|tool_call|>[{{"name": "weather", "arguments": {FULL_JSON}}}]<|/tool_call|>', calls=ONE),
}  # fmt: skip
# Answers that look like calls, and are content from the first letter to the last.
CONTENT: Sequence[tuple[str, str]] = [
    (HERMES, "Write <tool_call> before, and </tool_call> behind it.\n"),
    (HERMES, 'if a <tool and b: <tool_call {"name": "now"} '),
    (HERMES, '<tool_call>{"name": "unheard", "arguments": {}}</tool_call>'),
    (HERMES, '<tool_call>{"name": "now", "arguments": [1]}</tool_call>\n'),
    (HERMES, '<tool_call>{"name": "now", "arguments": {"a": NaN}}</tool_call>'),
    (HERMES, '<tool_call>{"name": "now", "arguments": {"a": 1}</tool_call> so'),
    (HERMES, '<tool_call>{"name": "now", "arguments": {"a": "'),
    (HERMES, '<tool_call>{"name": 7, "arguments": {}}</tool_call>'),
    (HERMES, "<tool_call></tool_call>"),
    (HERMES, "<tool_call>" + "[" * 100_000 + "</tool_call>"),
    (HERMES, '```json\n{"name": "now", "arguments": {}}\n```'),
    (CODER, "<tool_call>\n<function=unheard>\n</function>\n</tool_call>"),
    (CODER, "<function=now> is a tag"),
    (CODER, "<tool_call>\n<function=now>\nand</function>\n</tool_call>"),
    (MISTRAL, "[TOOL_CALLS] are tokens [1]"),
    (MISTRAL, '[TOOL_CALLS]unheard[ARGS]{"a": 1}'),
    (MISTRAL, '[TOOL_CALLS]now[ARGS]{"a": 1'),
    (LLAMA, '{"name": "Ann", "age": 7}'),
    (LLAMA, '{"name": "now", "parameters": {}} is a call'),
    (LLAMA, 'So: {"name": "now", "parameters": {}}'),
    (LLAMA, '{"city": "Paris"}\n'),
    (LLAMA, "{ a set }"),
    (LLAMA, "<|python_tag|>import math\nprint(math.pi)"),
    (LFM2, "<|tool_call_start|>[now(1)]<|tool_call_end|>"),
    (LFM2, "<|tool_call_start|>[now(a=b)]<|tool_call_end|>"),
    (LFM2, "<|tool_call_start|>[now(a=1e999)]<|tool_call_end|>"),
    (CODER, "<tool_call><function=now><parameter=a>[1e999]</parameter></function></tool_call>"),
    (LFM2, "<|tool_call_start|>" + "print(" * 10_000),
    (LFM2, "<|tool_call_start|>[now(a=" + "(" * 10_000 + ")]<|tool_call_end|>"),
    (GEMMA_3, "```tool_code\nx = 1\n```"),
    (GEMMA_3, "```python\nnow()\n```"),
    (GEMMA_4, "<|tool_call>call:unheard{}<tool_call|>"),
    (GEMMA_4, '<|tool_call>call:now{a:<|"|>b}<tool_call|>'),
    (GEMMA_4, "<|tool_call>now{}<tool_call|>"),
    (BARE, "[link](now) [1, 2]"),
    (BARE, "[1, 2, 3]"),
    (BARE, "[now"),
    (DEEPSEEK, "<｜tool▁calls▁begin｜>now<｜tool▁calls▁end｜>"),
]  # fmt: skip


def pieces(text: str, cuts: Iterable[int]) -> list[str]:
    return [text[a:b] for a, b in pairwise(sorted({0, *cuts, len(text)}))]


def parser_of(template: str, prompt: str = "", tools: Any = TOOLS, *, streams: bool = False) -> AnswerParser:
    return AnswerFormat.of(template).parser(tools=tools, prompt=prompt, stream_arguments=streams)


def events_of(parser: AnswerParser, parts: Iterable[str]) -> list[Event]:
    return [*(event for part in parts for event in parser.add(part)), *parser.finish()]


def joined(events: Iterable[Event]) -> list[tuple[Any, ...]]:
    """The events without ids, neighbours of one kind as one."""
    found: list[tuple[Any, ...]] = []
    for event in events:
        match event:
            case CallBegun(index, _, name):
                found.append(("call", index, name))
                continue
            case CallArguments(index, text):
                kind: tuple[Any, ...] = ("arguments", index)
            case Content(text) | Reasoning(text):
                kind = (type(event).__name__,)
        if found and found[-1][:-1] == kind:
            found[-1] = (*kind, found[-1][-1] + text)
        else:
            found.append((*kind, text))
    return found


def calls_of(events: Iterable[Event]) -> list[tuple[str, Any]]:
    return [(call.name, json.loads(call.arguments)) for call in answer_of(events).tool_calls]


@pytest.mark.parametrize("streams", [False, True], ids=["", "streamed"])
@pytest.mark.parametrize("name", CASES)
def test_an_answer_has_its_parts_however_it_is_cut(name: str, streams: bool) -> None:
    case = CASES[name]
    expected = None
    for cuts in [(), range(len(case.text)), *((at,) for at in range(1, len(case.text)))]:
        events = events_of(parser_of(case.template, case.prompt, streams=streams), pieces(case.text, cuts))
        answer = answer_of(events)
        assert (answer.content, answer.reasoning) == (case.content, case.reasoning)
        assert calls_of(events) == list(case.calls)
        expected = expected or joined(events)
        assert joined(events) == expected


@pytest.mark.parametrize("streams", [False, True], ids=["", "streamed"])
@pytest.mark.parametrize(("template", "text"), CONTENT)
def test_what_only_looks_like_a_call_is_content(template: str, text: str, streams: bool) -> None:
    for cuts in [(), range(min(len(text), 3000)), (1,), (len(text) // 2,), (len(text) - 1,)]:
        events = events_of(parser_of(template, streams=streams), pieces(text, cuts))
        if not (streams and any(isinstance(event, CallBegun) for event in events)):
            assert joined(events) == [("Content", text)]


def test_a_call_that_breaks_while_it_is_told_has_the_arguments_as_the_model_wrote_them() -> None:
    text = 'A <tool_call>{"name": "now", "arguments": {"a": 1</tool_call> B'
    expected = [("Content", "A"), ("call", 0, "now"), ("arguments", 0, '{"a": 1'), ("Content", " B")]
    for cuts in [(), range(len(text)), *((at,) for at in range(1, len(text)))]:
        assert joined(events_of(parser_of(HERMES, streams=True), pieces(text, cuts))) == expected


@settings(max_examples=300, deadline=None)
@given(data=st.data(), name=st.sampled_from([*CASES]), streams=st.booleans())
def test_any_cuts_of_any_damaged_answer_give_the_same_events(data: st.DataObject, name: str, streams: bool) -> None:
    case = CASES[name]
    place = st.integers(0, len(case.text))
    begin, end = sorted((data.draw(place), data.draw(place)))
    put = data.draw(st.sampled_from(["", *"\"'{}[]()<\\|=:, \n`", "<tool_call>", "[TOOL_CALLS]", "<|end|>", case.text]))
    text = case.text[:begin] + put + case.text[data.draw(st.sampled_from([begin, end])) :]
    cuts = data.draw(st.lists(st.integers(0, len(text)), max_size=8))
    whole, cut = (
        events_of(parser_of(case.template, case.prompt, streams=streams), parts)
        for parts in ([text], pieces(text, cuts))
    )
    assert joined(whole) == joined(cut)
    if not streams:
        calls_of(whole)  # they are JSON, whatever the answer was


@settings(max_examples=200, deadline=None)
@given(
    text=st.text(st.sampled_from("<tool_cal>/thinkfu=[TOOLCALS]{}\"'\\:,| \n"), max_size=60),
    name=st.sampled_from([*CASES]),
)
def test_any_text_is_an_answer(text: str, name: str) -> None:
    for streams in (False, True):
        answer_of(events_of(parser_of(CASES[name].template, streams=streams), text))


@pytest.mark.parametrize("name", ["hermes", "mistral, new", "mistral, old", "llama, tag", "lfm2, json", "gpt-oss"])
def test_arguments_come_while_the_model_writes_them_where_that_is_asked_for(name: str) -> None:
    case = CASES[name]
    parser = parser_of(case.template, case.prompt, streams=True)
    until = case.text.index('"days"')
    events = [event for letter in case.text[:until] for event in parser.add(letter)]
    assert joined(events)[-1][:2] == ("arguments", 0)
    assert joined(events)[-1][2].rstrip() == FULL_JSON[: FULL_JSON.index('"days"')].rstrip()
    held = parser_of(case.template, case.prompt)
    assert not any(isinstance(event, CallBegun) for letter in case.text[:until] for event in held.add(letter))


def test_text_is_told_as_soon_as_it_can_be_no_marker() -> None:
    parser = parser_of(HERMES)
    told = [answer_of(parser.add(piece)).content for piece in ("Hi ", "<", "b> <tool", "_call", " ", "x")]
    assert told == ["Hi", "", " <b>", "", " <tool_call", " x"]


def test_calls_have_ids_as_the_family_has_them() -> None:
    for template, pattern in ((HERMES, r"call_\w{24}"), (MISTRAL, r"[a-zA-Z0-9]{9}")):
        text = next(case.text for name, case in CASES.items() if case.template == template and len(case.calls) == 2)
        ids = [call.id for call in answer_of(events_of(parser_of(template), [text])).tool_calls]
        assert len(set(ids)) == 2
        assert all(re.fullmatch(pattern, each) for each in ids)


def test_without_tools_there_are_no_calls() -> None:
    for name in ("hermes", "llama", "mistral, new", "lfm2, json", "gemma 3, bare list"):
        case = CASES[name]
        for tools in (None, []):
            events = events_of(parser_of(case.template, tools=tools), [case.text])
            assert not answer_of(events).tool_calls
            assert answer_of(events).content.endswith(case.text[-20:])


def test_tools_may_be_functions_and_schemas_without_a_type() -> None:
    def add(a: int) -> int:
        """Adds.

        Args:
            a: A number
        """
        return a

    text = "<function=add><parameter=a>1</parameter></function><function=f></function>"
    events = events_of(parser_of(CODER, tools=[add, {"name": "f", "parameters": None}, {"type": "search"}]), [text])
    assert calls_of(events) == [("add", {"a": 1}), ("f", {})]


def test_values_between_tags_are_of_the_types_that_a_schema_allows_in_any_way() -> None:
    either = {"anyOf": [{"type": "string"}, {"type": "null"}]}
    properties = {"a": either, "b": either, "c": {"$ref": "#/$defs/x"}, "d": {"enum": ["1", "2"]}, "e": {}, "f": {}}
    parameters = {"properties": {**properties, "g": {"type": ["string", "number"]}}, "$defs": {"x": {"type": "string"}}}
    values = {"a": "null", "b": "5", "c": "6", "d": "1", "e": "7", "f": '"g"', "g": "8"}
    inside = "".join(f"<parameter={name}>{value}</parameter>" for name, value in values.items())
    parser = AnswerFormat.of(CODER).parser(tools=[{"name": "f", "parameters": parameters}])
    (call,) = answer_of([*parser.add(f"<function=f>{inside}</function>"), *parser.finish()]).tool_calls
    read = {"a": None, "b": "5", "c": "6", "d": "1", "e": 7, "f": '"g"', "g": 8}
    assert json.loads(call.arguments) == read


def test_whole_numbers_of_any_length_are_read() -> None:
    parser = AnswerFormat.of(LFM2).parser(tools=TOOLS)
    events = parser.add(f"<|tool_call_start|>[now(a={'9' * 400})]<|tool_call_end|>")
    assert answer_of(events).tool_calls[0].arguments == f'{{"a": {"9" * 400}}}'


def test_a_long_answer_is_read_in_a_time_that_follows_its_length() -> None:
    """A hundred thousand pieces; reading all of them again at each would take hours."""
    text = '<tool_call>{"name": "weather", "arguments": {"place": "' + "ab\\n{ " * 20_000 + '"}}</tool_call>'
    for streams in (False, True):
        events = events_of(parser_of(HERMES, streams=streams), text)
        assert len(calls_of(events)) == 1


@pytest.mark.parametrize(
    ("template", "markers"),
    [
        (HERMES, {"<think>", "</think>", "<tool_call>", "</tool_call>"}),
        (MISTRAL, {"[THINK]", "[/THINK]", "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"}),
        (LFM2, {"<think>", "</think>", "<|tool_call_start|>", "<|tool_call_end|>"}),
        (GEMMA_4, {"<|channel>", "<channel|>", "<|tool_call>", "<tool_call|>", '<|"|>'}),
        (GPT_OSS, {"<|start|>", "<|channel|>", "<|message|>", "<|constrain|>", "<|end|>", "<|call|>", "<|return|>"}),
        (LLAMA, {"<|python_tag|>"}),
        ("no tools", set()),
    ],
)
def test_markers_are_what_may_be_special_tokens(template: str, markers: set[str]) -> None:
    assert parser_of(template).markers == markers


def test_without_tools_only_reasoning_has_markers() -> None:
    assert parser_of(HERMES, tools=None).markers == {"<think>", "</think>"}

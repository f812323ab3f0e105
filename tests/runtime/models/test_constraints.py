"""Constraints in every generating call of a package with random weights, whose own texts are noise."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from click.testing import CliRunner

import edgellm
from edgellm import OptionError
from edgellm.cli import cli
from edgellm.ort.kernels import library
from edgellm.serving import Engine
from tiny_package import EOS

PROMPT = "Say it"
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 3},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 2},
    },
    "required": ["name", "tags"],
    "additionalProperties": False,
}
WHOLE = {"max_new_tokens": 80}
CONSTRAINTS: list[dict[str, Any]] = [
    {"json_schema": SCHEMA},
    {"regex": r"[A-Z]{2,5}-\d{3}"},
    {"grammar": 'start: word ("+" word)*\nword: /[a-z]{2}/'},
    {"choices": ["yes", "no", "yes, but\tno 🙂"]},
]


def check(sequence: edgellm.GeneratedSequence, options: dict[str, Any]) -> None:
    """What a text is asked to be, if it says that it is."""
    if not sequence.complete:
        assert sequence.finish_reason == "length"
        return
    text = sequence.text
    if "json_schema" in options:
        jsonschema.validate(json.loads(text), SCHEMA)
    elif "regex" in options:
        assert re.fullmatch(options["regex"], text)
    elif "grammar" in options:
        assert re.fullmatch(r"[a-z]{2}(\+[a-z]{2})*", text)
    else:
        assert text in options["choices"]


@pytest.mark.parametrize("constraint", CONSTRAINTS, ids=lambda c: next(iter(c)))
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_beams": 4, "num_return_sequences": 3},
        {"num_beams": 4, "do_sample": True, "seed": 1},
        {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.5},
        {"prompt_lookup": True},
        {"repetition_penalty": 1.3, "no_repeat_ngram_size": 2},
        {"min_new_tokens": 70},
    ],
)
def test_every_kind_in_every_search(model: edgellm.Model, constraint: dict[str, Any], options: dict[str, Any]) -> None:
    generation = model.generate(PROMPT, **WHOLE, **constraint, **options)
    assert any(sequence.complete for sequence in generation.sequences) or "grammar" in constraint
    for sequence in generation.sequences:
        check(sequence, constraint)


@pytest.mark.parametrize("constraint", CONSTRAINTS, ids=lambda c: next(iter(c)))
def test_sampling(model: edgellm.Model, constraint: dict[str, Any]) -> None:
    texts = set()
    for seed in range(10):
        options = {**WHOLE, **constraint, "do_sample": True, "seed": seed, "num_return_sequences": 2, "top_k": 5}
        for sequence in model.generate(PROMPT, **options).sequences:
            check(sequence, constraint)
            texts.add(sequence.text)
    assert len(texts) > 2


OWN: list[tuple[str, dict[str, Any]]] = [
    (PROMPT, CONSTRAINTS[0]),
    ("b", {}),
    ("a longer one", {**CONSTRAINTS[1], "do_sample": True, "seed": 4}),
    (PROMPT, {**CONSTRAINTS[3], "num_beams": 3}),
    ("x", {"do_sample": True, "seed": 2}),
    ("ab ab ab", {**CONSTRAINTS[2], "prompt_lookup": True}),
]


@pytest.mark.parametrize("served", [False, True])
def test_each_prompt_of_a_batch_gets_what_it_gets_alone(model: edgellm.Model, served: bool) -> None:
    """In a list of prompts, and among requests that come and go."""
    prompts, own = zip(*OWN, strict=True)
    if served:
        with Engine(model, max_rows=4) as engine:
            answers = [engine.submit(prompt, max_new_tokens=40, **options) for prompt, options in OWN]
            together = [answer.result(timeout=60) for answer in answers]
    else:
        together = model.generate(list(prompts), options=own, max_new_tokens=40)
    for prompt, options, found in zip(prompts, own, together, strict=True):
        alone = model.generate(prompt, max_new_tokens=40, **options)
        assert (found.tokens, found.finish_reason, found.complete) == (
            alone.tokens, alone.finish_reason, alone.complete
        )  # fmt: skip


@pytest.mark.skipif(library() is None, reason="edgellm-kernels is not installed")
@pytest.mark.parametrize("constraint", CONSTRAINTS, ids=lambda c: next(iter(c)))
@pytest.mark.parametrize("sampling", [{}, {"do_sample": True, "seed": 3}])
def test_forced_stretches_change_nothing(
    model: edgellm.Model, constraint: dict[str, Any], sampling: dict[str, Any]
) -> None:
    """A batch of two reads no forced stretches; a single prompt does, with prompt lookup and without."""
    options = {**WHOLE, **constraint, **sampling, "logprobs": True}
    plain, _ = model.generate([PROMPT, PROMPT], **options)
    assert plain.timing.drafted_tokens == 0
    for more in ({}, {"prompt_lookup": True}):
        model.reset()
        drafted = model.generate(PROMPT, **options, **more)
        assert (drafted.tokens, drafted.finish_reason) == (plain.tokens, plain.finish_reason)
        np.testing.assert_array_equal(drafted.logprobs, plain.logprobs)
        if constraint is CONSTRAINTS[0]:
            assert drafted.timing.accepted_tokens > 15  # of {"name": " and ", "tags": [
        if not more:
            assert drafted.timing.accepted_tokens == drafted.timing.drafted_tokens


def test_streams_and_sessions(model: edgellm.Model) -> None:
    options = {**WHOLE, "json_schema": SCHEMA}
    whole = model.generate(PROMPT, **options)
    pieces = list(model.stream(PROMPT, **options))
    assert "".join(map(str, pieces)) == whole.text
    assert [piece.complete for piece in pieces] == [None] * (len(pieces) - 1) + [True]
    with model.session() as session:
        assert session._reader.constraints is model._reader.constraints  # nothing is compiled anew
        for _ in range(2):
            again = session.generate(PROMPT, **options)
            assert (again.text, again.complete) == (whole.text, True)
    chat = model.chat([{"role": "user", "content": "Hi"}], choices=["a", "b"])
    assert chat.text in "ab"


def test_a_text_that_is_cut_off_says_so(model: edgellm.Model) -> None:
    cut = model.generate(PROMPT, json_schema=SCHEMA, max_new_tokens=20)
    assert (cut.finish_reason, cut.complete) == ("length", False)
    assert model.generate(PROMPT, max_new_tokens=5).complete is None
    stopped = model.generate(PROMPT, json_schema=SCHEMA, stop_strings=["tags"], **WHOLE)
    assert (stopped.finish_reason, stopped.complete) == ("stop_string", False)


def test_what_cannot_fit_is_refused_before_the_model_runs(model: edgellm.Model) -> None:
    with pytest.raises(OptionError, match="begins with 10 tokens that are always the same, and 9 are left"):
        model.generate(PROMPT, json_schema=SCHEMA, max_new_tokens=9)
    with pytest.raises(OptionError, match=r"options\[1\]: regex cannot be used"):
        model.generate([PROMPT, PROMPT], options=[{}, {"regex": "("}])


def test_without_an_end_token(model: edgellm.Model) -> None:
    ended = model.generate(PROMPT, regex="[a-z]{4}", eos_token_id=[])
    assert (len(ended.text), ended.finish_reason, ended.complete) == (4, "eos", True)
    other = model.generate(PROMPT, regex="[a-z]{4}", eos_token_id=[ord("!"), EOS])
    assert other.tokens[-1] in {ord("!"), EOS}
    assert re.fullmatch("[a-z]{4}!?", other.text)


def test_beyond_the_context(model: edgellm.Model) -> None:
    """Where the context shifts, forced stretches and all."""
    schema = {"type": "array", "items": {"const": "again and again"}, "minItems": 12, "maxItems": 12}
    found = model.generate(PROMPT, json_schema=schema, max_new_tokens=300, overflow="shift")
    assert json.loads(found.text) == ["again and again"] * 12
    assert found.dropped_tokens > 0
    assert found.timing.accepted_tokens > 150


def test_pipelines_pass_them_on(package: Path) -> None:
    pipe = edgellm.pipeline("text-generation", package)
    ((found,),) = [pipe(PROMPT, choices=["yes", "no"], return_full_text=False, do_sample=False)]
    assert found["generated_text"] in {"yes", "no"}


# the command line


def run(*arguments: str | Path | int) -> Any:
    return CliRunner().invoke(cli, list(map(str, arguments)))


def test_commands(package: Path, model: edgellm.Model, tmp_path: Path) -> None:
    schema, grammar = tmp_path / "schema.json", tmp_path / "grammar.lark"
    schema.write_text(json.dumps(SCHEMA), "utf-8")
    grammar.write_text('start: "a".."f"+', "utf-8")
    result = run("generate", package, PROMPT, "--json-schema", schema, "--max-new-tokens", 80)
    assert result.output == model.generate(PROMPT, json_schema=SCHEMA, max_new_tokens=80).text + "\n"
    jsonschema.validate(json.loads(result.output), SCHEMA)
    result = run("run", "text-generation", package, PROMPT, "--regex", "[a-z]{3}", "--no-return-full-text")
    assert re.fullmatch("[a-z]{3}\n", result.output)
    result = run("chat", package, "Hi", "--choices", "yes", "--choices", "no, not")
    assert result.output in {"yes\n", "no, not\n"}
    result = run("chat", package, "Hi", "--grammar", grammar, "--max-new-tokens", 3)
    assert re.fullmatch("[a-f]{1,3}\n", result.output)


def test_commands_say_what_is_wrong(package: Path, tmp_path: Path) -> None:
    (schema := tmp_path / "schema.json").write_text(json.dumps(SCHEMA), "utf-8")
    cut = run("generate", package, PROMPT, "--json-schema", schema, "--max-new-tokens", 20)
    assert (cut.exit_code, cut.stderr) == (
        0, "the text was cut off before it was what is asked for; raise --max-new-tokens\n"
    )  # fmt: skip
    as_json = json.loads(run("generate", package, PROMPT, "--regex", "aa", "--json").stdout)
    assert (as_json["complete"], as_json["sequences"][0]["complete"]) == (True, True)
    missing = run("generate", package, PROMPT, "--json-schema", tmp_path / "none.json")
    assert (missing.exit_code, "cannot read" in missing.stderr) == (2, True)
    (tmp_path / "latin").write_bytes(b"start: \xe9")
    assert "not UTF-8: byte 0xE9 at 7" in run("chat", package, "Hi", "--grammar", tmp_path / "latin").stderr
    wrong = run("generate", package, PROMPT, "--regex", "(")
    assert (wrong.exit_code, "unclosed group" in wrong.stderr) == (2, True)


def test_a_stop_string_may_begin_in_the_prompt_and_a_stop_may_not(model: edgellm.Model) -> None:
    given: dict[str, Any] = {"choices": ["\nbc"], "max_new_tokens": 9}
    for beams in (1, 2):
        assert model.generate("a\n", stop_strings="\n\n", num_beams=beams, **given).text == "\n"
        assert model.generate("a\n", stop="\n\n", num_beams=beams, **given).text == "\nbc"
        assert model.generate("a\n", stop=["\n\n", "b"], num_beams=beams, **given).text == "\nb"

"""What constraints are taken, what is refused, and with which words; what tokens of all kinds of tokenizers write."""

from __future__ import annotations

import json
import random
import sys
import time
from typing import Any

import numpy as np
import pydantic
import pytest
import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers

from edgellm.constraints import Constraints
from edgellm.constraints.vocabulary import Vocabulary
from edgellm.decoding import GenerationOptions
from edgellm.errors import InputError, MissingDependencyError, OptionError
from edgellm.text.tokenizer import Tokenizer
from json_schemas import made
from tiny_package import tiny_tokenizer
from vocabularies import unigrams

VOCAB = 270  # more than the tokenizer has


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(tiny_tokenizer())


@pytest.fixture(scope="module")
def constraints() -> Constraints:
    return Constraints()


def compiled(constraints: Constraints, tokenizer: Tokenizer | None, **options: Any) -> Any:
    return constraints.of(GenerationOptions.create(**options), tokenizer, VOCAB)


def says(constraint: Any, tokenizer: Tokenizer, text: str) -> bool:
    """Whether the text may be said, byte by byte, and ended."""
    state = constraint.begin()
    for token in tokenizer.encode(text).tolist():
        if not state.allowed()[token]:
            return False
        state.advance(token)
    return bool(state.may_end)


@pytest.mark.parametrize(
    ("options", "yes", "no"),
    [
        ({"json_schema": {"type": "integer"}}, "-12", "1.5"),
        ({"json_schema": '{"enum": ["é", 1]}'}, '"é"', "2"),
        ({"json_schema": True}, '{"a": [1, null]}', "{a}"),
        ({"json_schema": {}}, "[]", "[,]"),
        ({"json_schema": {"type": "object", "required": ["b", "a"]}}, '{"b": 1, "a": 2}', '{"a": 2}'),
        ({"json_schema": {"x-guidance": {"item_separator": ","}, "type": "array"}}, "[1,2]", "[1, 2]"),
        ({"regex": "[a-c]{2}|x+"}, "xxx", "abc"),
        ({"regex": r"\d{4}-\d\d"}, "2026-11", "2026-1"),
        ({"grammar": 'start: "a" b*\nb: /[0-9]/ ","'}, "a1,2,", "a1,2"),
        ({"grammar": 'start: "x" %json {"type": "boolean"}'}, "xtrue", "x1"),
        ({"choices": ["yes", "no", 'a "b"\n\\', "…"]}, 'a "b"\n\\', "ye"),
        ({"choices": "one"}, "one", "two"),
    ],
)
def test_what_may_be_said(
    options: dict[str, Any], yes: str, no: str, constraints: Constraints, tokenizer: Tokenizer
) -> None:
    constraint = compiled(constraints, tokenizer, **options)
    assert says(constraint, tokenizer, yes)
    assert not says(constraint, tokenizer, no)


def test_pydantic_models_are_schemas(constraints: Constraints, tokenizer: Tokenizer) -> None:
    class Inner(pydantic.BaseModel):
        score: float = pydantic.Field(ge=0, le=1)

    class Outer(pydantic.BaseModel):
        name: str
        inner: Inner | None = None

    constraint = compiled(constraints, tokenizer, json_schema=Outer)
    assert says(constraint, tokenizer, '{"name": "x", "inner": {"score": 0.5}}')
    assert says(constraint, tokenizer, '{"name": "x"}')
    assert not says(constraint, tokenizer, '{"name": "x", "inner": {"score": 2}}')


def test_options_are_values(constraints: Constraints, tokenizer: Tokenizer) -> None:
    first = GenerationOptions.create(json_schema={"type": "object", "properties": {"b": {}, "a": {}}})
    same = GenerationOptions.create(json_schema='{"type":"object","properties":{"b":{},"a":{}}}')
    other = GenerationOptions.create(json_schema={"type": "object", "properties": {"a": {}, "b": {}}})
    assert len({first, same, other}) == 2  # properties come in the order of the schema
    assert constraints.of(first, tokenizer, VOCAB) is constraints.of(same, tokenizer, VOCAB)
    assert constraints.of(GenerationOptions(), tokenizer, VOCAB) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"json_schema": "no JSON"}, "expected a JSON Schema"),
        ({"json_schema": 3}, "expected a JSON Schema: a dict, the text of a JSON object, a pydantic model"),
        ({"json_schema": False}, "expected a JSON Schema"),
        ({"json_schema": {"a": {1, 2}}}, "not JSON serializable"),
        ({"json_schema": {"minimum": float("nan")}}, "expected a JSON Schema"),
        ({"regex": ""}, "expected a non-empty text"),
        ({"grammar": b"start"}, "expected a non-empty text"),
        ({"choices": []}, None),
        ({"choices": ["a", ""]}, "expected a non-empty string or a list of them"),
        ({"choices": ["a"], "regex": "a"}, "regex and choices say what the text may be, expected one of them"),
        ({"json_schema": {"not": {}}}, 'json_schema cannot be used: Unimplemented keys: ["not"]'),
        ({"json_schema": {"type": "array", "uniqueItems": True}}, "uniqueItems"),
        ({"json_schema": {"type": "string", "format": "color"}}, "Unknown format: color"),
        ({"json_schema": {"type": "word"}}, "Invalid type: word"),
        ({"json_schema": {"$ref": "https://example.org/x"}}, "retrieving it failed"),
        ({"json_schema": {"enum": []}}, "Unsatisfiable schema"),
        ({"json_schema": {"$ref": "#"}}, "it allows no text"),
        ({"json_schema": {"oneOf": [{"type": "integer"}, {"type": "number"}]}}, "oneOf"),
        ({"regex": "("}, "regex cannot be used: .*unclosed group"),
        ({"regex": "a(?=b)"}, "look-around"),
        ({"grammar": "start: nothing"}, 'grammar cannot be used: .*"nothing"'),
        ({"grammar": "start = a"}, "grammar cannot be used"),
        ({"grammar": 'start: "\ud800"'}, r"grammar holds a lone surrogate, U\+D800"),
        ({"regex": "a\udfff"}, r"regex holds a lone surrogate, U\+DFFF"),
        ({"choices": ["a", "\ud800"]}, r"choices holds a lone surrogate, U\+D800"),
        ({"json_schema": {"const": "\ud800"}}, r"json_schema holds a lone surrogate, U\+D800"),
    ],
)
def test_what_is_refused(
    options: dict[str, Any], message: str | None, constraints: Constraints, tokenizer: Tokenizer
) -> None:
    if message is None:
        assert compiled(constraints, tokenizer, **options) is None
        return
    with pytest.raises(OptionError, match=message.replace("[", r"\[")):
        compiled(constraints, tokenizer, **options)


def deep(depth: int) -> Any:
    return {"type": "object", "properties": {"a": deep(depth - 1)}} if depth else {"type": "integer"}


EXPLODING: dict[str, dict[str, Any]] = {
    "nested stars": {"regex": "(a*)*" * 2000},
    "brackets": {"regex": "(" * 20_000 + "a" + ")" * 20_000},
    "long": {"regex": "a" * 300_000},
    "remainders": {"json_schema": {"type": "integer", "multipleOf": 9_999_991}},
    "remainders with zeros": {"json_schema": {"type": "integer", "multipleOf": 8_192_000}},
    "remainders of several": {"json_schema": {"allOf": [{"type": "integer", "multipleOf": n} for n in (97, 101, 103)]}},
    "deep": {"json_schema": deep(200)},
    "bottomless": {"json_schema": {"$defs": {"n": {"type": "object", "properties": {"n": {"$ref": "#/$defs/n"}},
                                   "required": ["n"]}}, "$ref": "#/$defs/n"}},
    "combinations": {"json_schema": {"allOf": [
        {"anyOf": [{"properties": {f"{i}{j}": {"type": "null"}}} for j in range(6)]} for i in range(8)]}},
    "many properties": {"json_schema": {"type": "object", "properties": {f"p{i}": {"type": "string", "pattern":
                                        f"(a|b|ab)*c{{{i}}}"} for i in range(2000)}}},
    "a chain of rules": {"grammar": "start: r0\n" + "".join(f'r{i}: "a" r{i + 1} | "b"\n' for i in range(4000))},
    "a chain of references": {"json_schema": {"$ref": "#/$defs/0", "$defs": {
        f"{i}": {"type": "object", "properties": {"a": {"$ref": f"#/$defs/{i + 1}"}}} for i in range(2000)}}},
    "many patterns": {"json_schema": {"type": "object", "patternProperties": {f"^p{i}[a-z]{{1,20}}$": {}
                                                                              for i in range(500)}}},
    "optional parts": {"grammar": "start: " + ' ("a" | "b" | "ab")?' * 5000},
    "exponential complement": {"grammar": "start: T\nT: /[ab]*a[ab]{25}/ & ~/[ab]*a[ab]{25}/"},
}  # fmt: skip


@pytest.mark.parametrize("name", EXPLODING)
def test_what_explodes_is_refused_soon(name: str, constraints: Constraints, tokenizer: Tokenizer) -> None:
    """Within a second, on a machine that does nothing else."""
    compiled(constraints, tokenizer, regex="a")  # the vocabulary is there
    start = time.perf_counter()
    with pytest.raises(OptionError):
        compiled(constraints, tokenizer, **EXPLODING[name])
    assert time.perf_counter() - start < 3


@pytest.mark.parametrize(
    "regex", ["(a|b|ab)*{1,99999}", "((a|b|ab){1,999}){1,99999}", "[ab]*a[ab]{25}", r"\p{L}{0,100000}"]
)
def test_what_looks_bad_costs_little(regex: str, constraints: Constraints, tokenizer: Tokenizer) -> None:
    rng = np.random.default_rng(0)
    start = time.perf_counter()
    state = compiled(constraints, tokenizer, regex=regex).begin()
    for _ in range(100):
        if state.may_go_on:
            state.advance(int(rng.choice(np.flatnonzero(state.allowed()))))
    assert time.perf_counter() - start < 3


def mutated(text: str, rng: random.Random) -> str:
    """With characters taken out, put in and repeated."""
    letters = list(text)
    for _ in range(rng.choice([1, 2, 5, 20])):
        place, length = rng.randrange(len(letters) + 1), rng.choice([1, 1, 4, 30])
        put = rng.choice([letters[place : place + length], list(rng.choice(PIECES)), []])
        letters[place : place + length * rng.randrange(2)] = put
    return "".join(letters)


PIECES = [*'{}[]()"\\|*+?.,:;~&^$#/<>%@-_ \n09az\x00é🙂', "{1,99999}", "(.*)*", '"multipleOf": 7, ', '"$ref": "#", ']
TEXTS = {
    "json_schema": [json.dumps(schema) for _, schema in made(54)],
    "regex": ["(a|b)*c{2,5}", r"[^\s]{1,9}$", r"\p{L}+(?i:x)", "a.{20}b", r"[a-z]+@[a-z]+\.com"],
    "grammar": [
        'start: a b*\na: "x" | /[0-9]+/\nb: "," a',
        'start: %json {"type":"integer"}',
        "start[lazy]: /[a-z]*;/",
    ],
}


@pytest.mark.parametrize("name", TEXTS)
def test_damaged_ones_are_refused_or_work(name: str, constraints: Constraints, tokenizer: Tokenizer) -> None:
    """No crash, nothing that takes long, and always a token where the text may not end."""
    rng, worked = random.Random(0), 0
    for _ in range(500):
        text = mutated(rng.choice(TEXTS[name]), rng)
        start = time.perf_counter()
        try:
            constraint = compiled(constraints, tokenizer, **{name: text})
        except OptionError:
            constraint = None
        if constraint is not None:
            worked += 1
            state = constraint.begin()
            assert state.may_end or state.may_go_on
            for _ in range(10):
                if state.may_go_on:
                    state.advance(int(rng.choice(np.flatnonzero(state.allowed()))))
        assert time.perf_counter() - start < 3, text
    assert worked > 25


def test_numbers_may_be_multiples_of_a_hundredth(constraints: Constraints, tokenizer: Tokenizer) -> None:
    cents = {"type": "number", "multipleOf": 0.01}
    assert says(compiled(constraints, tokenizer, json_schema=cents), tokenizer, "12.34")
    assert not says(compiled(constraints, tokenizer, json_schema=cents), tokenizer, "12.345")
    millions = {"type": "integer", "multipleOf": 1_000_000}
    assert says(compiled(constraints, tokenizer, json_schema=millions), tokenizer, "3000000")
    apart = {"properties": {"a": {"type": "integer", "multipleOf": 997}, "b": {"type": "integer", "multipleOf": 991}}}
    assert says(compiled(constraints, tokenizer, json_schema={"type": "object", **apart}), tokenizer, '{"a": 1994}')


def test_constraints_need_the_library_and_a_tokenizer(monkeypatch: pytest.MonkeyPatch, tokenizer: Tokenizer) -> None:
    with pytest.raises(InputError, match="no tokenizer"):
        compiled(Constraints(), None, choices=["a"])
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(MissingDependencyError, match=r"pip install edgellm\[grammar\]"):
        compiled(Constraints(), tokenizer, choices=["a"])


def test_what_was_used_last_is_kept(tokenizer: Tokenizer) -> None:
    constraints = Constraints()
    first = compiled(constraints, tokenizer, choices=["0"])
    for number in range(1, 32):
        compiled(constraints, tokenizer, choices=[str(number)])
    assert compiled(constraints, tokenizer, choices=["0"]) is first
    second = compiled(constraints, tokenizer, choices=["1"])
    compiled(constraints, tokenizer, choices=["new"])
    assert compiled(constraints, tokenizer, choices=["0"]) is first
    assert compiled(constraints, tokenizer, choices=["1"]) is second
    assert len(constraints._compiled) == 32


def test_copies_go_their_own_way(constraints: Constraints, tokenizer: Tokenizer) -> None:
    state = compiled(constraints, tokenizer, choices=["ab", "cd"]).begin()
    other = state.copy()
    state.advance(ord("a"))
    assert other.allowed().nonzero()[0].tolist() == [ord("a"), ord("c")]
    assert list(state.forced()) == [ord("b")]
    assert state.accepted([ord("b"), ord("b")]) == 1
    assert state.allowed().nonzero()[0].tolist() == [ord("b")]
    assert not state.allowed()[256:].any()  # special tokens, and ids that the tokenizer has not


# tokenizers

CLOSED = {"type": "object", "required": ["name"], "additionalProperties": False}
CORPUS = ['{"name": "Ünlü", "list": [1, 2]} positive negative neutral. The answer is 42.'] * 3


def byte_level() -> Any:
    trained = tokenizers.ByteLevelBPETokenizer()
    trained.train_from_iterator(CORPUS, vocab_size=300, special_tokens=["<s>"], show_progress=False)
    trained.add_tokens(["<think>"])
    return trained._tokenizer


def metaspace() -> Any:
    tokenizer = tokenizers.SentencePieceUnigramTokenizer()._tokenizer
    tokenizer.model = models.Unigram(unigrams(CORPUS, 60, ["<s>", "<unk>"]), 1)
    tokenizer.add_special_tokens(["<s>", "<unk>"])
    return tokenizer


def byte_fallback() -> Any:
    """As Llama 2's: a space in front of the text, which the decoder takes away, and bytes for unknown characters."""
    pieces = [*(f"<0x{byte:02X}>" for byte in range(256)), *"▁aeinopstvugl{", "▁po", "si", "po", "▁{", "<unk>", "<s>"]
    vocabulary, merges = {piece: i for i, piece in enumerate(pieces)}, [("s", "i"), ("p", "o"), ("▁", "po")]
    tokenizer = tokenizers.Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(parts)
    tokenizer.add_special_tokens([AddedToken("<s>", special=True), AddedToken("<unk>", special=True)])
    return tokenizer


@pytest.mark.parametrize("make", [byte_level, metaspace, byte_fallback])
@pytest.mark.parametrize(
    "options",
    [
        {"choices": ["positive", "negative", "neutral"]},
        {"regex": "(positive|po+) [0-9]{1,3}"},
        {"json_schema": {"properties": {"name": {"enum": ["Ünlü", "a b"]}}, **CLOSED}},
    ],
)
def test_what_is_decoded_is_what_was_allowed(make: Any, options: dict[str, Any]) -> None:
    """Also where the decoder drops the first space: tokens that begin with it may then begin the text."""
    tokenizer, constraints = Tokenizer(make()), Constraints()
    constraint = constraints.of(GenerationOptions.create(**options), tokenizer, tokenizer.vocab_size)
    check, bytewise = Constraints(), Tokenizer(tiny_tokenizer())
    spelled = check.of(GenerationOptions.create(**options), bytewise, bytewise.vocab_size)
    ended = 0
    for seed in range(30):
        rng, state, tokens = np.random.default_rng(seed), constraint.begin(), []
        while state.may_go_on and len(tokens) < 60:
            if forced := state.forced():
                assert state.allowed().nonzero()[0].tolist() == forced[:1]
            tokens.append(int(rng.choice(np.flatnonzero(state.allowed()))))
            state.advance(tokens[-1])
        if state.may_end:
            ended += 1
            assert says(spelled, bytewise, tokenizer.decode(tokens, clean_up=False))
    assert ended >= 15


def test_a_first_token_may_have_the_space_that_is_dropped() -> None:
    tokenizer = Tokenizer(byte_fallback())
    state = Constraints().of(GenerationOptions.create(regex="(po|si).*"), tokenizer, tokenizer.vocab_size).begin()
    begins = {tokenizer.token_of(int(i)) for i in np.flatnonzero(state.allowed())}
    assert {"po", "▁po"} <= begins
    assert "▁" not in begins
    state.advance(tokenizer.id_of("▁po"))
    assert state.allowed()[tokenizer.id_of("▁po")]  # now with its space


def test_what_cannot_be_written_is_refused_or_ends_the_text() -> None:
    tokenizer, constraints = Tokenizer(metaspace()), Constraints()
    assert tokenizer.id_of("#") is None
    with pytest.raises(OptionError, match="or none that tokens of this model write"):
        constraints.of(GenerationOptions.create(choices=["#1"]), tokenizer, tokenizer.vocab_size)
    state = constraints.of(GenerationOptions.create(choices=["a#1"]), tokenizer, tokenizer.vocab_size).begin()
    state.advance(int(state.allowed().argmax()))
    assert (state.may_go_on, state.may_end) == (False, False)


def test_tokens_for_a_text_write_exactly_that_text() -> None:
    for make in (byte_level, metaspace, byte_fallback):
        vocabulary = Vocabulary(Tokenizer(make()), 310)
        for text in ("name", ' "name"', "positive negative", " ", "<s>", "Ünlü", "#🙂", '"}\n', "<think>"):
            ids = vocabulary(text)
            assert b"".join(vocabulary.tokens[i] for i in ids) == text.encode(), (make, text)
            assert not set(ids) & set(vocabulary.special_token_ids)


def test_a_tokenizer_whose_tokens_change_each_other_is_refused() -> None:
    pieces = tokenizers.Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    pieces.decoder = decoders.WordPiece()
    words = tokenizers.Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    stripped, replaced = byte_fallback(), byte_fallback()
    mark = decoders.Replace("▁", " ")
    stripped.decoder = decoders.Sequence([mark, decoders.Fuse(), decoders.Strip(" ", 1, 1)])
    replaced.decoder = decoders.Sequence([mark, decoders.Replace(tokenizers.Regex("a+"), "a")])
    for tokenizer in (pieces, words, stripped, replaced):
        with pytest.raises(OptionError, match="needs to know what each token writes"):
            Constraints().of(GenerationOptions.create(choices=["a"]), Tokenizer(tokenizer), 2)


def test_the_schema_is_as_it_was_given() -> None:
    schema = {"type": "object", "properties": {"ü": {"const": "ä"}}}
    assert json.loads(GenerationOptions.create(json_schema=schema).json_schema or "") == schema

"""The public calls, end to end on a tiny model, against the same model in plain numpy."""

from __future__ import annotations

import math
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgellm
from edgellm import InputError, Model, OptionError, PackageCorruptError, PackageNotFoundError
from edgellm.engines.cached import chunks
from tiny_package import BOS, EOS, TinyConfig, reference_logits

PackageMaker = Callable[[TinyConfig], Path]

TINY = TinyConfig()
LONG = TinyConfig(long_from=24)
PROMPTS = [[1, 2, 3], list(range(40, 75)), [9], list(range(100, 117))]
TO_THE_LIMIT: dict[str, Any] = {"eos_token_id": []}


def greedy(config: TinyConfig, prompt: list[int], count: int) -> tuple[int, ...]:
    """What the model says if every token is computed from scratch."""
    ids = list(prompt)
    for _ in range(count):
        ids.append(int(reference_logits(config, ids)[-1].argmax()))
    return tuple(ids[len(prompt) :])


def assert_close(got: Any, expected: Any) -> None:
    np.testing.assert_allclose(got, expected, rtol=0, atol=2e-5)


# Correctness, whatever the batch, the chunks, the threads or the cached prefix


@pytest.mark.parametrize("config", [TINY, LONG], ids=["plain", "two-tables"])
@pytest.mark.parametrize("prompt", PROMPTS, ids=len)
def test_greedy_tokens(make_package: PackageMaker, config: TinyConfig, prompt: list[int]) -> None:
    model = edgellm.load(make_package(config), threads=1, prefill_chunk=8)
    result = model.generate(prompt, max_new_tokens=20, **TO_THE_LIMIT)
    assert result.tokens == greedy(config, prompt, 20)
    assert result.finish_reason == "length"
    assert result.prompt_tokens == len(prompt)


@pytest.mark.parametrize("config", [TINY, LONG], ids=["plain", "two-tables"])
@pytest.mark.parametrize("chunk", [1, 7, 64, 1000])
def test_logits_do_not_depend_on_the_chunk_size(make_package: PackageMaker, config: TinyConfig, chunk: int) -> None:
    tokens = np.arange(80) * 37 % 256
    logits = edgellm.load(make_package(config), prefill_chunk=chunk).logits(tokens)
    assert logits.dtype == np.float32
    assert_close(logits, reference_logits(config, tokens))


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_logits_do_not_depend_on_the_threads(package: Path, threads: int) -> None:
    assert_close(edgellm.load(package, threads=threads).logits(list(range(60))), reference_logits(TINY, range(60)))


@pytest.mark.parametrize("config", [TINY, LONG], ids=["plain", "two-tables"])
def test_a_batch_gives_what_its_prompts_give_alone(make_package: PackageMaker, config: TinyConfig) -> None:
    """Rows of different lengths; with two tables, rows that change over at different times."""
    model = edgellm.load(make_package(config), threads=2, prefill_chunk=16)
    together = model.generate(PROMPTS, max_new_tokens=25, **TO_THE_LIMIT)
    assert [result.tokens for result in together] == [greedy(config, prompt, 25) for prompt in PROMPTS]


@pytest.mark.parametrize("config", [TINY, LONG], ids=["plain", "two-tables"])
def test_engine_logits_row_by_row(make_package: PackageMaker, config: TinyConfig) -> None:
    """Prefill, decode and reorder with more and fewer rows: every row's logits are those of its own tokens."""
    engine = edgellm.load(make_package(config), threads=1, prefill_chunk=5)._new_engine()
    rows = [list(prompt) for prompt in PROMPTS]
    logits = engine.prefill([np.array(row) for row in rows])
    rng = np.random.default_rng(1)
    for parents in ([0, 1, 2, 3], [3, 3, 0], [2, 1, 0, 0, 1, 2], [5, 4], [1, 0], *([[0, 1]] * 20)):
        assert_close(logits, [reference_logits(config, row)[-1] for row in rows])
        engine.reorder(np.array(parents))
        rows = [list(rows[parent]) for parent in parents]
        new = rng.integers(0, 256, len(rows))
        for row, token in zip(rows, new.tolist(), strict=True):
            row.append(token)
        logits = engine.decode(new)
    assert_close(logits, [reference_logits(config, row)[-1] for row in rows])


def test_logits_of_a_step_are_the_callers(model: Model) -> None:
    engine = model._new_engine()
    first = engine.prefill([np.array([1, 2])])
    kept = first.copy()
    engine.decode(np.array([3]))
    np.testing.assert_array_equal(first, kept)


def test_a_cached_prefix_changes_nothing_but_the_work(package: Path) -> None:
    model = edgellm.load(package, threads=1, prefill_chunk=8)
    first = model.generate(list(range(30)), max_new_tokens=10, **TO_THE_LIMIT)
    for prompt in (
        [*range(30), *first.tokens, 5, 6],
        [*range(30)],
        [*range(20), 7, 7],
        [0],
        [200, 201],
    ):
        assert model.generate(prompt, max_new_tokens=10, **TO_THE_LIMIT).tokens == greedy(TINY, prompt, 10)


def test_the_next_turn_computes_only_what_is_new(package: Path) -> None:
    model = edgellm.load(package, threads=1, prefill_chunk=2)
    first = model.generate(list(range(30)), max_new_tokens=5, **TO_THE_LIMIT)
    seen: list[tuple[int, int]] = []
    turn = [*range(30), *first.tokens, 8, 9, 10]
    model.generate(turn, max_new_tokens=1, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(36, 38), (38, 38)]
    model.reset()
    seen.clear()
    model.generate(turn, max_new_tokens=1, progress=lambda done, total: seen.append((done, total)))
    assert len(seen) == 19


@pytest.mark.parametrize("stop", range(4, 14))
@pytest.mark.parametrize("size", [2, 3, 5])
def test_no_chunk_is_a_single_token(stop: int, size: int) -> None:
    cuts = chunks(3, stop, size)
    assert [token for start, end in cuts for token in range(start, end)] == list(range(3, stop))
    assert all(2 <= end - start <= size + 1 for start, end in cuts) or stop == 4


def test_float16_graphs_give_float32_logits(make_package: PackageMaker) -> None:
    config = TinyConfig(dtype="float16", target="cuda")
    model = edgellm.load(make_package(config), device="cpu")
    logits = model.logits(list(range(50)))
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, reference_logits(config, range(50)), atol=0.05)
    assert len(model.generate(PROMPTS, max_new_tokens=30, **TO_THE_LIMIT)) == 4


@pytest.mark.cuda
def test_the_gpu_agrees_with_the_reference(make_package: PackageMaker) -> None:
    config = TinyConfig(dtype="float16", target="cuda")
    model = edgellm.load(make_package(config), prefill_chunk=16)
    assert model.info.device == "cuda"
    np.testing.assert_allclose(model.logits(list(range(50))), reference_logits(config, range(50)), atol=0.05)
    engine = model._new_engine()
    rows = [list(prompt) for prompt in PROMPTS]
    engine.prefill([np.array(row) for row in rows])
    engine.reorder(np.array([3, 3, 1]))
    logits = engine.decode(np.array([5, 6, 7]))
    expected = [reference_logits(config, [*rows[i], token])[-1] for i, token in ((3, 5), (3, 6), (1, 7))]
    np.testing.assert_allclose(logits, expected, atol=0.05)


# Texts, streams, chats


def test_text_prompts_and_results(model: Model) -> None:
    result = model.generate("Hello", max_new_tokens=12, logprobs=True, **TO_THE_LIMIT)
    assert result.tokens == greedy(TINY, list(b"Hello"), 12)
    assert result.text == model.tokenizer.decode(result.tokens) == str(result)
    assert result.logprobs is not None
    ids = [*b"Hello", *result.tokens]
    assert_close(result.logprobs, log_softmax(reference_logits(TINY, ids))[range(4, 16), ids[5:]])
    assert result.timing.new_tokens == 12
    assert 0 < result.timing.time_to_first_token_s < result.timing.total_s
    assert result.timing.tokens_per_second > 0


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(-1, keepdims=True)))


def test_one_prompt_gives_one_result_and_a_list_a_list(model: Model) -> None:
    alone = model.generate("ab", max_new_tokens=3)
    assert isinstance(alone, edgellm.Generation)
    for prompts in (["ab"], [[97, 98]], [np.array([97, 98])], ("ab",)):
        (result,) = model.generate(prompts, max_new_tokens=3)  # type: ignore[call-overload]
        assert result.tokens == alone.tokens
    assert model.generate(np.array([97, 98], np.int32), max_new_tokens=3).tokens == alone.tokens


def test_beams_and_several_sequences(model: Model) -> None:
    result = model.generate("ab", max_new_tokens=6, num_beams=4, num_return_sequences=3, **TO_THE_LIMIT)
    assert len(result.sequences) == 3
    scores = [sequence.score for sequence in result.sequences]
    assert scores == sorted(scores, reverse=True)
    best = result.sequences[0]
    assert (result.text, result.tokens, result.score) == (best.text, best.tokens, best.score)
    ids = [*b"ab", *best.tokens]
    total = log_softmax(reference_logits(TINY, ids))[range(1, 7), ids[2:]].sum()
    assert_close(best.score, total / 6)


OWN_OPTIONS: list[dict[str, Any]] = [
    {},
    {"do_sample": True, "seed": 3, "num_return_sequences": 2, "temperature": 1.5},
    {"repetition_penalty": 1.4, "no_repeat_ngram_size": 2, "max_new_tokens": 5},
    {"logprobs": True, "suppress_tokens": [1, 2, 3]},
    {"stop_strings": ["a", "e", "i", "o", "u", " ", "~"], "max_new_tokens": 40},
    {"num_beams": 3, "num_return_sequences": 2},
    {"eos_token_id": list(range(0, 264, 2)), "min_new_tokens": 3},
    {"prompt_lookup": True, "max_new_tokens": 50},
]


def test_prompts_with_options_of_their_own_get_what_they_get_alone(model: Model) -> None:
    prompts = ["abcabcabc", [1, 2, 3], "Hi", list(range(40, 75)), "x", [9], "yes", "ab ab ab ab"]
    shared: dict[str, Any] = {"max_new_tokens": 12, **TO_THE_LIMIT}
    together = model.generate(prompts, options=OWN_OPTIONS, **shared)  # type: ignore[arg-type]
    for found, prompt, own in zip(together, prompts, OWN_OPTIONS, strict=True):
        alone = model.generate(prompt, **{**shared, **own})  # type: ignore[arg-type]
        assert [s.tokens for s in found.sequences] == [s.tokens for s in alone.sequences]
        assert [(s.text, s.finish_reason) for s in found.sequences] == [
            (s.text, s.finish_reason) for s in alone.sequences
        ]
        assert found.prompt_tokens == alone.prompt_tokens
        for one, other in zip(found.sequences, alone.sequences, strict=True):
            assert_close(one.logprobs or [], other.logprobs or [])
            assert (one.logprobs is None) == (not own.get("logprobs"))
            assert_close(one.score or 0, other.score or 0)
    assert {found.finish_reason for found in together} == {"length", "stop_string", "eos"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([{}], r"options has 1 entries, expected one for each of 2 prompts"),
        ([{}, {}, {}], r"options has 3 entries, expected one for each of 2 prompts"),
        ({"seed": 3}, r"options is \{'seed': 3\}, expected a list of dicts, one for each prompt"),
        ("greedy", r"options is 'greedy', expected a list of dicts"),
        (7, r"options is 7, expected a list of dicts"),
        ([{}, None], r"options\[1\] is None, expected a dict of options by name"),
        ([{}, {1: 2}], r"options\[1\] is \{1: 2\}, expected a dict of options by name"),
        ([{}, {"temprature": 1}], r"options\[1\]: unknown option 'temprature'; did you mean 'temperature'"),
        ([{"max_new_tokens": 0}, {}], r"options\[0\]: max_new_tokens is 0, expected a whole number from 1"),
        ([{}, {"do_sample": False}], r"options\[1\]: top_p is 0.9 and has no effect without do_sample=True"),
        ([{"suppress_tokens": [999]}, {}], r"options\[0\]: suppress_tokens holds 999"),
        ([{}, {"overflow": "shift"}], r"overflow is \"shift\" with 2 prompts"),
    ],
)
def test_wrong_options_of_their_own(model: Model, options: Any, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        model.generate(["a", "b"], options=options, do_sample=True, top_p=0.9)


def test_one_prompt_may_come_with_its_options(model: Model) -> None:
    expected = model.generate("Hi", max_new_tokens=4).tokens
    assert model.generate(["Hi"], options=[{"max_new_tokens": 4}])[0].tokens == expected
    with pytest.raises(OptionError, match="unknown option 'options'"):
        model.stream("Hi", options=[{}])


def test_streaming_gives_what_generate_gives(model: Model) -> None:
    for options in ({}, {"do_sample": True, "seed": 3}, {"max_new_tokens": 1}, {"logprobs": True}):
        options = {"max_new_tokens": 30, **TO_THE_LIMIT, **options}
        whole = model.generate("Hi", **options)
        pieces = list(model.stream("Hi", **options))
        assert "".join(piece.text for piece in pieces) == whole.text
        assert tuple(token for piece in pieces for token in piece.tokens) == whole.tokens
        assert [piece.finish_reason for piece in pieces] == [None] * (len(pieces) - 1) + ["length"]
        if whole.logprobs is not None:
            assert tuple(logprob for piece in pieces for logprob in piece.logprobs or ()) == whole.logprobs


def test_closing_a_stream_stops_it(package: Path) -> None:
    model = edgellm.load(package)
    stream = model.stream("Hi", max_new_tokens=50, **TO_THE_LIMIT)
    next(stream)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert model.generate("Hi", max_new_tokens=5, **TO_THE_LIMIT).tokens == greedy(TINY, list(b"Hi"), 5)


def test_two_streams_at_once(package: Path) -> None:
    model = edgellm.load(package)
    streams = [model.stream(text, max_new_tokens=20, **TO_THE_LIMIT) for text in ("one", "two")]
    tokens = [[piece.tokens[0] for piece in pair] for pair in zip(*streams, strict=True)]
    for i, text in enumerate(("one", "two")):
        assert tuple(pair[i] for pair in tokens) == greedy(TINY, list(text.encode()), 20)


def test_several_threads(package: Path) -> None:
    model = edgellm.load(package, threads=2)
    expected = {text: greedy(TINY, list(text.encode()), 15) for text in ("a", "bb", "ccc", "dddd")}
    found: dict[str, set[tuple[int, ...]]] = {text: set() for text in expected}

    def work(text: str) -> None:
        for _ in range(10):
            found[text].add(model.generate(text, max_new_tokens=15, **TO_THE_LIMIT).tokens)

    threads = [threading.Thread(target=work, args=(text,)) for text in expected]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {text: {tokens} for text, tokens in expected.items()}


def test_stop_strings_and_end_tokens(package: Path) -> None:
    model = edgellm.load(package)
    free = model.generate("Hi", max_new_tokens=30, **TO_THE_LIMIT)
    at = next(i for i in range(5, 30) if free.tokens[i] < 128)
    stop = chr(free.tokens[at])
    first = free.tokens.index(free.tokens[at])
    stopped = model.generate("Hi", max_new_tokens=30, stop_strings=stop, **TO_THE_LIMIT)
    assert stopped.finish_reason == "stop_string"
    assert stopped.tokens == free.tokens[: first + 1]
    assert stopped.text.endswith(stop)
    ended = model.generate("Hi", max_new_tokens=30, eos_token_id=free.tokens[at])
    assert (ended.finish_reason, ended.tokens) == ("eos", free.tokens[: first + 1])


def test_chat(package: Path) -> None:
    model = edgellm.load(package)
    messages = [{"role": "user", "content": "Hi"}]
    options = {"max_new_tokens": 8, **TO_THE_LIMIT}
    prompt = [259, *b"user\nHi", 260, *b"\n", 259, *b"assistant\n"]
    answer = model.chat(messages, **options)
    assert answer.tokens == greedy(TINY, prompt, 8)
    assert answer.prompt_tokens == len(prompt)
    assert "".join(piece.text for piece in model.stream_chat(messages, **options)) == answer.text


def test_the_packages_generation_defaults(make_package: PackageMaker) -> None:
    model = edgellm.load(make_package(TinyConfig(generation={"max_new_tokens": 4, "unknown": 1})))
    assert len(model.generate("Hi", **TO_THE_LIMIT).tokens) == 4
    assert len(model.generate("Hi", max_new_tokens=6, **TO_THE_LIMIT).tokens) == 6


# Scores


def test_score(package: Path) -> None:
    model = edgellm.load(package, prefill_chunk=4)
    score = model.score("Hello you")
    ids = list(b"Hello you")
    expected = log_softmax(reference_logits(TINY, ids))[range(8), ids[1:]]
    assert score.tokens == tuple(ids)
    assert_close(score.logprobs, expected)
    assert math.isclose(score.total, expected.sum(), rel_tol=1e-5)
    assert math.isclose(score.perplexity, math.exp(-expected.mean()), rel_tol=1e-4)
    with pytest.raises(InputError, match="at least two tokens"):
        model.score("H")


# Cancelling


class SetAfter:
    """Is set from the `count`-th question on."""

    def __init__(self, count: int) -> None:
        self.left = count

    def is_set(self) -> bool:
        self.left -= 1
        return self.left < 0


@pytest.mark.parametrize("options", [{}, {"num_beams": 2}], ids=["greedy", "beams"])
def test_cancelled_while_generating(model: Model, options: dict[str, Any]) -> None:
    result = model.generate("Hi", max_new_tokens=50, cancel=SetAfter(4), **TO_THE_LIMIT, **options)
    assert result.finish_reason == "cancelled"
    assert 1 <= len(result.tokens) < 10


def test_cancelled_during_the_prompt(package: Path) -> None:
    model = edgellm.load(package, prefill_chunk=4)
    event = threading.Event()
    seen = []

    def progress(done: int, total: int) -> None:
        seen.append(done)
        if done == 8:
            event.set()

    prompt = list(range(40))
    result = model.generate(prompt, cancel=event, progress=progress)
    assert (result.tokens, result.finish_reason, seen) == ((), "cancelled", [4, 8])
    event.clear()
    model.reset()
    (piece,) = model.stream(prompt, cancel=event, progress=progress)
    assert (piece.text, piece.tokens, piece.finish_reason) == ("", (), "cancelled")
    event.clear()
    assert model.generate(prompt, max_new_tokens=5, **TO_THE_LIMIT).tokens == greedy(TINY, prompt, 5)


def test_out_of_time(package: Path) -> None:
    model = edgellm.load(package, prefill_chunk=1)
    result = model.generate(list(range(90)), max_time=1e-6)
    assert (result.tokens, result.finish_reason) == ((), "time")


# What is refused


def test_the_context_is_the_limit(model: Model) -> None:
    prompt = list(range(90))
    result = model.generate(prompt, max_new_tokens=1000, **TO_THE_LIMIT)
    assert (len(result.tokens), result.finish_reason) == (6, "length")
    assert result.tokens == greedy(TINY, prompt, 6)
    assert model.logits(list(range(96))).shape == (96, TINY.vocab_size)
    with pytest.raises(edgellm.ContextOverflowError, match="no room for a new token"):
        model.generate(list(range(96)))
    for call in (model.generate, model.logits, model.score):
        with pytest.raises(edgellm.ContextOverflowError, match="the prompt has 97 tokens, the model's context is 96"):
            call(list(range(97)))


def test_an_empty_prompt_is_bos_or_an_error(model: Model, make_package: PackageMaker) -> None:
    assert model.generate("", max_new_tokens=5, **TO_THE_LIMIT).tokens == greedy(TINY, [BOS], 5)
    without = edgellm.load(make_package(TinyConfig(bos=None)))
    with pytest.raises(InputError, match="no BOS token"):
        without.generate("")


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ([], "the list of prompts is empty"),
        (None, "found NoneType"),
        (b"Hi", "found bytes"),
        (5, "found int"),
        ([1, 264], "token id 264, expected ids from 0 to 263"),
        ([1, -1], "token id -1"),
        ([1, 2.5], "holds 2.5"),
        ([1, True], "holds True"),
        ([1, 2**70], "beyond 64 bits"),
        (["ok", 3], "found int"),
        (["ok", "\ud800"], "lone surrogate"),
        (np.zeros((2, 2), np.int64), "shape"),
        (np.zeros(2), "float64"),
        ([np.zeros((1, 1), np.int64)], "one-dimensional"),
    ],
)
def test_wrong_prompts(model: Model, prompt: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        model.generate(prompt)


def test_wrong_options(model: Model) -> None:
    with pytest.raises(OptionError, match="did you mean 'temperature'"):
        model.generate("Hi", temprature=1)
    with pytest.raises(OptionError, match="beams are not final before the end"):
        model.stream("Hi", num_beams=2)
    with pytest.raises(InputError, match="stream takes one prompt"):
        model.stream(["Hi"])  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="token ids of this model are below 264"):
        model.generate("Hi", suppress_tokens=[999])


def test_wrong_packages(package: Path, tmp_path: Path) -> None:
    with pytest.raises(PackageNotFoundError):
        edgellm.load(tmp_path / "nothing")
    with pytest.raises(OptionError, match="prefill_chunk is 0"):
        edgellm.load(package, prefill_chunk=0)
    copy = Path(shutil.copytree(package, tmp_path / "copy"))
    (copy / "model.onnx.data").write_bytes(b"x" * (copy / "model.onnx.data").stat().st_size)
    with pytest.raises(PackageCorruptError, match="was changed after the export"):
        edgellm.load(copy)


def test_a_manifest_that_does_not_fit_the_graph(package: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(package, tmp_path / "copy"))
    manifest = copy / "edgellm.json"
    manifest.write_text(manifest.read_text().replace('"num_layers": 2', '"num_layers": 3'))
    with pytest.raises(PackageCorruptError, match=r"disagree: missing .*past_key_values\.2\.key"):
        edgellm.load(copy)


def test_info(model: Model, package: Path) -> None:
    info = model.info
    assert (info.device, info.provider, info.precision, info.threads) == ("cpu", "CPUExecutionProvider", "fp32", 1)
    assert (info.context_length, info.vocab_size, info.cache_bytes_per_token) == (96, 264, 2 * 2 * 2 * 16 * 4)
    assert info.package_bytes == sum(p.stat().st_size for p in package.iterdir() if p.name != "edgellm.json")


def test_memory_follows_the_tokens_in_use(make_package: PackageMaker) -> None:
    model = edgellm.load(make_package(TinyConfig(context_length=100_000)))
    model.generate("Hi", max_new_tokens=5, **TO_THE_LIMIT)
    assert model._idle[0].cache_bytes == 64 * model.info.cache_bytes_per_token
    model.reset()
    assert not model._idle


def test_an_end_token_of_the_package(model: Model) -> None:
    assert model.manifest.tokens.eos == (EOS,)
    result = model.generate("Hi", max_new_tokens=3, forced_eos_token_id=EOS)
    assert result.finish_reason == "eos"
    assert result.tokens[-1] == EOS

"""Packages made by onnxruntime-genai's model builder, in edgellm: its tokens, and every verb."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import edgellm
from comparison import prompt, relative
from edgellm.cli import cli
from edgellm.ort.kernels import library
from interchange.peer import Peer

NEW_TOKENS = 20
CHUNK = 16  # prompt tokens read at once
TEMPLATE = "{% for m in messages %}<s>{{ m.role }}: {{ m.content }}\n{% endfor %}"
TOKENIZER = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "bos_token": "<s>",
    "eos_token": "</s>",
    "pad_token": "<pad>",
    "chat_template": TEMPLATE,
}
FAMILIES = ["llama", "llama-llama3", "llama-biases-tied", "qwen2", "qwen3", "phi3", "gemma2"]

Build = Callable[..., Path]


@pytest.fixture(scope="session")
def built(genai: Peer, checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Build:
    """The builder's package of a family, by name and precision."""
    work = tmp_path_factory.mktemp("genai")

    @cache
    def completed(name: str) -> Path:
        """The builder wants to know the tokenizer's class, and of Phi-3 that its positions are not extended."""
        path = shutil.copytree(checkpoint(name), work / name)
        (path / "tokenizer_config.json").write_text(json.dumps(TOKENIZER))
        config = json.loads((path / "config.json").read_text())
        if config.get("rope_scaling") is None and "original_max_position_embeddings" in config:
            config["original_max_position_embeddings"] = config["max_position_embeddings"]
            (path / "config.json").write_text(json.dumps(config))
        return path

    @cache
    def build(name: str, precision: str, *options: str) -> Path:
        out = work / "-".join([name, precision, *options])
        chosen = [f"{option}=true" for option in options]
        genai.ask("build", checkpoint=str(completed(name)), out=str(out), precision=precision, options=chosen)
        return out

    return build


def load(path: Path) -> edgellm.Model:
    model = edgellm.load(path, threads=1, prefill_chunk=CHUNK, kernels="off")
    assert isinstance(model, edgellm.Model)
    return model


@pytest.mark.skipif(library() is None, reason="edgellm-kernels is not installed")
@pytest.mark.parametrize("family", ["llama", "phi3"])
def test_with_a_bfloat16_cache(built: Build, family: str) -> None:
    path, ids = built(family, "fp32"), prompt(family, 40)
    kinds: tuple[Any, ...] = ("bfloat16", "auto")
    half, wide = (edgellm.load(path, threads=1, kv_cache=kind) for kind in kinds)
    assert isinstance(half, edgellm.Model)
    assert isinstance(wide, edgellm.Model)
    assert 2 * half.info.cache_bytes_per_token == wide.info.cache_bytes_per_token
    assert 0 < relative(half.logits(ids), wide.logits(ids)) < 0.05


@pytest.mark.parametrize("precision", ["fp32", "int8", "int4"])
@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_tokens(genai: Peer, built: Build, family: str, precision: str) -> None:
    path = built(family, precision)
    model = load(path)
    assert model.manifest.weights.precision == precision
    assert model.manifest.model.cache.growth == "in_place"
    for length in (9, 60):
        ids = prompt(family, length, seed=1).tolist()
        expected = genai.ask("generate", package=str(path), prompt=ids, max_new_tokens=NEW_TOKENS)
        found = model.generate(ids, max_new_tokens=NEW_TOKENS).tokens
        assert [token for token in found if token not in model.manifest.tokens.eos] == expected


def test_long_rope(built: Build, package: Callable[..., Path]) -> None:
    """The graph chooses between two tables. edgellm computes what the original does, also across the change."""
    model, ours = load(built("phi3-longrope", "fp32")), load(package("phi3-longrope", "fp32"))
    assert model.manifest.model.rope.recompute_beyond == 24
    prompts = [prompt("phi3-longrope", length, seed=2).tolist() for length in (9, 60)]
    found, expected = (m.generate(prompts, max_new_tokens=NEW_TOKENS) for m in (model, ours))
    assert [result.tokens for result in found] == [result.tokens for result in expected]


VERBS: list[dict[str, Any]] = [
    {},
    {"num_beams": 3, "num_return_sequences": 2},
    {"do_sample": True, "temperature": 0.9, "top_k": 20, "seed": 3, "num_return_sequences": 2},
    {"repetition_penalty": 1.4, "no_repeat_ngram_size": 2},
]


@pytest.mark.parametrize("options", VERBS, ids=lambda options: "+".join(options) or "greedy")
def test_batches_and_searches(built: Build, package: Callable[..., Path], options: dict[str, Any]) -> None:
    """As our own package of the same weights, in a batch of different lengths."""
    prompts = [prompt("qwen3", length, seed=length).tolist() for length in (40, 3, 17)]
    found, expected = (
        load(path("qwen3", "fp32")).generate(prompts, max_new_tokens=12, **options) for path in (built, package)
    )
    assert [[s.tokens for s in g.sequences] for g in found] == [[s.tokens for s in g.sequences] for g in expected]


@pytest.mark.parametrize("options", [(), ("prune_lm_head",)], ids=["all-logits", "last-logits"])
def test_logits_and_scores(built: Build, package: Callable[..., Path], options: tuple[str, ...]) -> None:
    ids = prompt("llama", 50, seed=4).tolist()
    theirs, ours = load(built("llama", "fp32", *options)), load(package("llama", "fp32"))
    assert relative(theirs.logits(ids), ours.logits(ids)) < 1e-5
    assert np.allclose(theirs.score(ids).logprobs, ours.score(ids).logprobs, atol=1e-4)
    assert (
        theirs.generate(ids, max_new_tokens=9, prompt_lookup=True).tokens == ours.generate(ids, max_new_tokens=9).tokens
    )


def test_a_prompt_that_continues_the_last_one(built: Build) -> None:
    model, ids = load(built("llama", "fp32")), prompt("llama", 50, seed=5).tolist()
    first = model.generate(ids, max_new_tokens=8).tokens
    again = [*ids, *first, *ids[:5]]
    read = []
    reused = model.generate(again, max_new_tokens=8, progress=lambda done, total: read.append(done)).tokens
    assert reused == load(built("llama", "fp32")).generate(again, max_new_tokens=8).tokens
    assert read[0] > len(ids)


def test_text_streams_and_chats(built: Build, package: Callable[..., Path]) -> None:
    theirs, ours = load(built("llama", "fp32")), load(package("llama", "fp32"))
    messages = [{"role": "user", "content": "Hi there"}]
    text = "<s>user: Hi there\n"
    answer = theirs.chat(messages, max_new_tokens=15)
    streamed = "".join(str(piece) for piece in theirs.stream_chat(messages, max_new_tokens=15))
    assert theirs.chat_template.render(messages) == text
    assert theirs.tokenizer is not None
    ids = theirs.tokenizer.encode(text).tolist()
    assert answer.tokens == ours.generate(ids, max_new_tokens=15).tokens
    assert streamed == answer.text


def test_settings_of_genai_config(genai: Peer, built: Build, tmp_path: Path) -> None:
    """The builder writes no generation_config.json: what it found there is under "search"."""
    path = shutil.copytree(built("llama", "fp32"), tmp_path / "package")
    config = json.loads((path / "genai_config.json").read_text())
    config["search"]["repetition_penalty"] = 1.8
    config["model"]["eos_token_id"] = [2, 104]
    (path / "genai_config.json").write_text(json.dumps(config))
    ids = prompt("llama", 9, seed=5).tolist()
    expected = genai.ask("generate", package=str(path), prompt=ids, max_new_tokens=40)
    model = load(path)
    found = model.generate(ids, max_new_tokens=40).tokens
    assert [token for token in found if token not in (2, 104)] == expected
    assert expected != list(load(built("llama", "fp32")).generate(ids, max_new_tokens=40).tokens)


def test_sessions(built: Build, tmp_path: Path) -> None:
    """Forked and saved, as those of our own packages."""
    model, ids = load(built("llama", "fp32")), prompt("llama", 20, seed=6).tolist()
    session = model.session()
    first = session.generate(ids, max_new_tokens=6).tokens
    fork = session.fork()
    session.save(tmp_path / "file")
    more = [*ids, *first, 7, 8]
    expected = load(built("llama", "fp32")).generate(more, max_new_tokens=6).tokens
    assert fork.generate(more, max_new_tokens=6).tokens == expected
    assert model.load_session(tmp_path / "file").generate(more, max_new_tokens=6).tokens == expected


def test_commands(built: Build) -> None:
    path = str(built("llama", "int4"))
    run = partial(CliRunner().invoke, cli, catch_exceptions=False)
    assert "GroupQueryAttention" in run(["inspect", path]).output
    generated = run(["generate", path, "Hello", "--max-new-tokens", "5"])
    assert generated.stdout == load(Path(path)).generate("Hello", max_new_tokens=5).text + "\n"
    timed = run(["bench", path, "-p", "8", "-n", "4", "-r", "1", "--loads", "0", "-t", "1", "--json"])
    assert timed.exit_code == 0
    assert "int4" in json.dumps(json.loads(timed.stdout))
    assert run(["doctor", path]).exit_code == 0


@pytest.mark.real_model
def test_the_real_model(genai: Peer, smollm2_checkpoint: Path, tmp_path: Path) -> None:
    """SmolLM2-135M-Instruct at int4, from text to text: on the same kernels the same tokens, on edgellm's as good."""
    out = tmp_path / "package"
    genai.ask("build", checkpoint=str(smollm2_checkpoint), out=str(out), precision="int4", options=[])
    model = edgellm.load(out, kernels="off")
    assert isinstance(model, edgellm.Model)
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    ids = genai.ask("tokenize", package=str(out), text=genai.ask("chat_prompt", package=str(out), messages=messages))
    answer = model.chat(messages, max_new_tokens=40)
    expected = genai.ask("generate", package=str(out), prompt=ids, max_new_tokens=40)
    assert [token for token in answer.tokens if token not in model.manifest.tokens.eos] == expected
    assert "Paris" in answer.text
    ours = edgellm.load(out)
    assert isinstance(ours, edgellm.Model)
    assert "Paris" in ours.chat(messages, max_new_tokens=40).text

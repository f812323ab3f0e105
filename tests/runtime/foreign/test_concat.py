"""Graphs of other tools: what they can do is found out, and what they cannot do is not asked of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import load_model, save_model

import edgellm
from concat_directory import CONTEXT, PAST, VOCAB, Flaws, toy_graph, write_directory
from edgellm.cli import cli
from edgellm.engines.concat.cache import ConcatCache
from edgellm.engines.concat.graph import ConcatGraph
from edgellm.foreign import read_foreign
from edgellm.ort.loaded_graph import LoadedGraph
from edgellm.package.manifest import CacheLayout

LENGTHS = (3, 17, 17, 30)
FLAWS = {
    "none": Flaws(),
    "counts padding": Flaws(counts_padding=True),
    "sees ahead": Flaws(sees_ahead=True),
    "shares a scale": Flaws(shares_scale=True),
}
LAYOUT = CacheLayout(2, 3, 4, "float32", growth="concat")


def prompts(seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(2, VOCAB - 1, length) for length in LENGTHS]


@pytest.fixture(params=FLAWS)
def flawed(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    return request.param, write_directory(tmp_path / "toy", FLAWS[request.param])


def graph_of(path: Path) -> ConcatGraph:
    root, manifest = read_foreign(path)
    session = LoadedGraph(root / manifest.graphs["model"].file, threads=1)
    return ConcatGraph(session, session, manifest)


def test_abilities_are_found_out(flawed: tuple[str, Path]) -> None:
    flaw, path = flawed
    graph = graph_of(path)
    assert graph.takes_chunks == (flaw not in ("sees ahead", "shares a scale"))
    assert graph.takes_lengths == (flaw not in ("counts padding", "shares a scale"))
    assert graph.takes_batches == (flaw != "shares a scale")


def test_a_prompt_gets_the_same_in_any_batch(flawed: tuple[str, Path]) -> None:
    model = edgellm.load(flawed[1], threads=1)
    together = model.generate(prompts(), max_new_tokens=12, logprobs=True)
    for prompt, got in zip(prompts(), together, strict=True):
        alone = model.generate(prompt, max_new_tokens=12, logprobs=True)
        assert got.tokens == alone.tokens
        assert got.logprobs == pytest.approx(alone.logprobs, abs=1e-4)


def test_chunks_do_not_change_the_logits(flawed: tuple[str, Path]) -> None:
    whole = edgellm.load(flawed[1], threads=1, prefill_chunk=CONTEXT).logits(prompts()[-1])
    chunked = edgellm.load(flawed[1], threads=1, prefill_chunk=4).logits(prompts()[-1])
    assert np.abs(whole - chunked).max() < 1e-4 * np.abs(whole).max()


def test_a_kept_cache_does_not_change_the_logits(flawed: tuple[str, Path]) -> None:
    model = edgellm.load(flawed[1], threads=1)
    prompt = prompts()[-1]
    first = model.generate(prompt[:20], max_new_tokens=5)
    longer = np.concatenate([prompt[:20], first.tokens[:-1], prompt[20:]])
    kept = model.generate(longer, max_new_tokens=8)
    model.reset()
    assert kept.tokens == model.generate(longer, max_new_tokens=8).tokens


def test_prompt_lookup_gives_the_same_tokens(flawed: tuple[str, Path]) -> None:
    model = edgellm.load(flawed[1], threads=1)
    repeating = np.tile([5, 6, 7, 8], 6)
    plain = model.generate(repeating, max_new_tokens=20)
    assert model.generate(repeating, max_new_tokens=20, prompt_lookup=True).tokens == plain.tokens


def test_beams_and_streams(tmp_path: Path) -> None:
    model = edgellm.load(write_directory(tmp_path / "toy"), threads=1)
    beams = model.generate(prompts(), num_beams=4, max_new_tokens=10)
    assert [g.tokens for g in beams] == [model.generate(p, num_beams=4, max_new_tokens=10).tokens for p in prompts()]
    streamed = [token for piece in model.stream(prompts()[1], max_new_tokens=10) for token in piece.tokens]
    assert tuple(streamed) == model.generate(prompts()[1], max_new_tokens=10).tokens


def test_the_context_is_a_limit(tmp_path: Path) -> None:
    model = edgellm.load(write_directory(tmp_path / "toy"), threads=1)
    prompt = np.full(CONTEXT - 3, 5)
    assert len(model.generate(prompt, max_new_tokens=10, eos_token_id=[]).tokens) == 3
    with pytest.raises(edgellm.ContextOverflowError):
        model.generate(np.full(CONTEXT + 1, 5))


def test_two_graphs_are_one_model(tmp_path: Path) -> None:
    one = edgellm.load(write_directory(tmp_path / "one"), threads=1)
    two = edgellm.load(write_directory(tmp_path / "two", split=True, folder="onnx"), threads=1, prefill_chunk=5)
    assert [g.tokens for g in two.generate(prompts())] == [g.tokens for g in one.generate(prompts())]


def test_the_community_layout(tmp_path: Path) -> None:
    plain = edgellm.load(write_directory(tmp_path / "plain"), threads=1)
    path = write_directory(tmp_path / "community", folder="onnx")
    model = edgellm.load(path, threads=1)
    assert model.generate(prompts()[0]).tokens == plain.generate(prompts()[0]).tokens
    (path / "onnx" / "model.onnx").rename(path / "onnx" / "model_fp32.onnx")
    assert edgellm.load(path / "onnx" / "model_fp32.onnx", threads=1).info.path == path


def test_what_the_directory_says(tmp_path: Path) -> None:
    root, manifest = read_foreign(write_directory(tmp_path / "toy"))
    assert root == tmp_path / "toy"
    assert (manifest.vocab_size, manifest.context_length, manifest.tokens.eos) == (VOCAB, CONTEXT, (VOCAB - 1,))
    assert manifest.weights.precision == "fp32"
    assert manifest.model.cache == CacheLayout(1, 2, 8, "float32", growth="concat")


def test_inspect_shows_it(tmp_path: Path) -> None:
    path = write_directory(tmp_path / "toy")
    result = CliRunner().invoke(cli, ["inspect", str(path)])
    assert result.exit_code == 0
    assert "toy, text-generation" in result.output
    assert "made by another tool" in result.output
    assert "divergence" not in result.output


def test_weights_beside_the_graph(tmp_path: Path) -> None:
    path = write_directory(tmp_path / "toy")
    expected = edgellm.load(path, threads=1).generate(prompts()[0]).tokens
    save_external(path, "model.onnx_data")
    model = edgellm.load(path, threads=1)
    assert model.generate(prompts()[0]).tokens == expected
    assert model.info.package_bytes == sum((path / f"model.onnx{end}").stat().st_size for end in ("", "_data"))
    (path / "model.onnx_data").unlink()
    with pytest.raises(edgellm.PackageError, match=r"has no model\.onnx_data"):
        edgellm.load(path)


@pytest.mark.parametrize("location", ["../elsewhere.data", "/etc/passwd", "link.data"])
def test_weights_from_elsewhere_are_refused(tmp_path: Path, location: str) -> None:
    path = write_directory(tmp_path / "toy")
    save_external(path, "model.onnx_data")
    (path / "model.onnx_data").rename(tmp_path / "elsewhere.data")
    (path / "link.data").symlink_to(tmp_path / "elsewhere.data")
    model = load_model(path / "model.onnx", load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    (path / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(edgellm.PackageError, match="leads outside"):
        edgellm.load(path)


def test_the_hubs_cache_is_one_place(tmp_path: Path) -> None:
    """Its snapshots are links to blobs."""
    path = write_directory(tmp_path / "models--org--toy" / "snapshots" / "0123")
    save_external(path, "model.onnx_data")
    blobs = path.parent.parent / "blobs"
    blobs.mkdir()
    for name in ("model.onnx", "model.onnx_data"):
        (path / name).rename(blobs / f"hash-of-{name}")
        (path / name).symlink_to(blobs / f"hash-of-{name}")
    model = edgellm.load(path, threads=1)
    assert model.generate(prompts()[0]).tokens


def save_external(path: Path, name: str) -> None:
    model = load_model(path / "model.onnx")
    save_model(model, path / "model.onnx", save_as_external_data=True, location=name, size_threshold=100)


def _rename_input(old: str, new: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        graph = toy_graph()
        for node in graph.graph.node:
            node.input[:] = [new if name == old else name for name in node.input]
        next(i for i in graph.graph.input if i.name == old).name = new
        save_model(graph, path / "model.onnx")

    return change


def _no_cache(path: Path) -> None:
    save_model(toy_graph(has_past=False), path / "model.onnx")


def _flat_cache(path: Path) -> None:
    graph = toy_graph()
    for value in graph.graph.input:
        if value.name in PAST:
            del value.type.tensor_type.shape.dim[1]
    save_model(graph, path / "model.onnx")


def _half(path: Path) -> None:
    (path / "model.onnx").rename(path / "decoder_model.onnx")


BAD: dict[str, tuple[Callable[[Path], None], str]] = {
    "no config": (lambda path: (path / "config.json").unlink(), "no config.json"),
    "config is no JSON": (lambda path: (path / "config.json").write_text("{"), "not valid JSON"),
    "an unknown input": (_rename_input("position_ids", "pixel_values"), "does not know: pixel_values"),
    "no cache": (_no_cache, "text-generation-with-past"),
    "fused keys and values": (_rename_input(PAST[0], "past_key_values.0.key_value"), "gpt_bigcode"),
    "a flat cache": (_flat_cache, "bloom"),
    "half a decoder": (_half, "decoder_with_past_model.onnx"),
    "not a graph": (lambda path: (path / "model.onnx").write_bytes(b"not a graph"), "not an ONNX model"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_run_is_one_clear_error(case: str, tmp_path: Path) -> None:
    change, message = BAD[case]
    path = write_directory(tmp_path / "toy")
    change(path)
    with pytest.raises(edgellm.PackageError, match=message) as error:
        edgellm.load(path)
    assert "\n" not in str(error.value)


def test_a_manifest_without_hashes_is_refused(tmp_path: Path) -> None:
    path, manifest = read_foreign(write_directory(tmp_path / "toy"))
    (path / "edgellm.json").write_text(json.dumps(manifest.to_dict()))
    with pytest.raises(edgellm.PackageCorruptError, match="no size and hash"):
        edgellm.load(path)


STEPS = st.one_of(
    st.tuples(st.just("append"), st.sets(st.integers(0, 3), min_size=1), st.integers(1, 3)),
    st.tuples(st.just("trim"), st.integers(0, 6), st.none() | st.integers(0, 3)),
    st.tuples(st.just("reorder"), st.lists(st.integers(0, 3), min_size=1, max_size=4)),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(STEPS, max_size=12))
def test_the_cache_holds_what_rows_were_given(steps: list[tuple]) -> None:
    """Beside lists of numbers: each token of a row leaves one number, in all of its keys and values."""
    cache, rows, number = ConcatCache(LAYOUT), [[] for _ in range(3)], 0
    cache.reset(3)
    for step in steps:
        match step:
            case ("append", wanted, count):
                chosen = [row for row in sorted(wanted) if row < len(rows)]
                if not chosen:
                    continue
                block = cache.together(chosen)
                new = np.arange(number + 1, number + 1 + len(chosen) * count).reshape(len(chosen), count)
                number += new.size
                cache.advance(chosen, [_behind(tensor, new) for tensor in block.tensors], count)
                for row, values in zip(chosen, new.tolist(), strict=True):
                    rows[row] = rows[row] + values
            case ("trim", length, row):
                if row is None or row < len(rows):
                    cache.trim(length, row)
                    rows = [r[:length] if row in (None, i) else r for i, r in enumerate(rows)]
            case ("reorder", parents):
                parents = [parent % len(rows) for parent in parents]
                cache.reorder(parents)
                rows = [rows[parent] for parent in parents]
        assert cache.lengths == [len(row) for row in rows]
        _check_contents(cache, rows)


def _behind(past: np.ndarray, new: np.ndarray) -> np.ndarray:
    values = np.broadcast_to(new[:, None, :, None], (len(new), 3, new.shape[1], 4)).astype(np.float32)
    return np.concatenate([past, values], axis=2)


def _check_contents(cache: ConcatCache, rows: list[list[int]]) -> None:
    block = cache.together(range(len(rows)))
    assert block.length == max(map(len, rows))
    assert cache.nbytes == len(rows) * block.length * LAYOUT.bytes_per_token()
    for tensor in block.tensors:
        for held, row in zip(np.asarray(tensor), rows, strict=True):
            assert np.array_equal(held[:, block.length - len(row) :, 0], [row] * 3)

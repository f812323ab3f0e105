"""Adapters merged into weights, beside the formula written down once more."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from edgellm.errors import CheckpointError, ExportError, TensorError, UnsupportedModelError
from edgellm_export.adapters.checkpoint import OpenAdapter, merge_adapters, task_of_adapters
from edgellm_export.adapters.config import parse_adapter_config
from edgellm_export.checkpoint import Checkpoint, patterns
from edgellm_export.checkpoint.tensors import ArrayTensor, LazyTensor
from edgellm_export.sources.adapter import AdapterFiles

Arrays = dict[str, np.ndarray]
RANK, SCALE = 2, 2.0
QUERY, DOWN, NORM = "model.layers.0.self_attn.q_proj", "model.layers.0.mlp.down_proj", "model.norm"
EMBEDDING, HEAD = "model.embed_tokens", "lm_head"
LLAMA = {
    "model_type": "llama", "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 1,
    "head_dim": 16, "vocab_size": 10, "max_position_embeddings": 32, "rms_norm_eps": 1e-5, "rope_theta": 1e4,
}  # fmt: skip
SHAPES = {
    f"{EMBEDDING}.weight": (10, 16), f"{HEAD}.weight": (10, 16), f"{QUERY}.weight": (16, 16), f"{QUERY}.bias": (16,),
    f"{DOWN}.weight": (16, 24), f"{NORM}.weight": (16,),
}  # fmt: skip
GPT2 = {"model_type": "gpt2", "n_embd": 16, "n_layer": 1, "n_head": 1, "n_positions": 8, "vocab_size": 10}
CONV = "transformer.h.0.attn.c_attn"
T5 = {
    "model_type": "t5", "d_model": 16, "d_kv": 16, "d_ff": 8, "num_layers": 1, "num_heads": 1, "vocab_size": 10,
    "is_encoder_decoder": True, "relative_attention_num_buckets": 8, "relative_attention_max_distance": 16,
}  # fmt: skip
BERT = {
    "model_type": "bert", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8,
    "vocab_size": 10, "max_position_embeddings": 8, "type_vocab_size": 2,
}  # fmt: skip


def arrays(seed: int, **shapes: tuple[int, ...]) -> Arrays:
    generator = np.random.default_rng(seed)
    return {name: generator.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def lazy(content: Arrays) -> dict[str, LazyTensor]:
    return {name: ArrayTensor(name, array) for name, array in content.items()}


def base(config: Mapping[str, Any] = LLAMA, shapes: Mapping[str, tuple[int, ...]] = SHAPES, **keys: Any) -> Checkpoint:
    return Checkpoint({**config, **keys}, lazy(arrays(0, **shapes)), {}, {"kind": "huggingface", "name": "base"})


def tied() -> Checkpoint:
    return base(shapes={n: s for n, s in SHAPES.items() if not n.startswith(HEAD)}, tie_word_embeddings=True)


def factors(module: str, outputs: int, inputs: int, seed: int = 1, rank: int = RANK) -> Arrays:
    return arrays(seed, **{f"{module}.lora_A.weight": (rank, inputs), f"{module}.lora_B.weight": (outputs, rank)})


def words(module: str, seed: int = 1) -> Arrays:
    return arrays(seed, **{f"{module}.lora_embedding_A": (RANK, 10), f"{module}.lora_embedding_B": (16, RANK)})


def adapter(
    content: Arrays, weight: float = 1.0, prefix: str = "base_model.model.", files: Any = (), **keys: Any
) -> OpenAdapter:
    """Of scale 2, unless `keys` of its config say something else."""
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": 4, "target_modules": "all-linear", **keys}
    tensors = lazy({prefix + name: array for name, array in content.items()})
    opened = AdapterFiles("ADAPTER", config, tensors, dict(files), {"name": "ADAPTER"})
    return OpenAdapter(opened, parse_adapter_config(config, "ADAPTER"), weight)


def whole(tensor: LazyTensor) -> np.ndarray:
    """Read in pieces, as the exporter does."""
    count = tensor.shape[0]
    return np.concatenate([tensor.rows(start, min(start + 3, count)) for start in range(0, count, 3)])


def merged(checkpoint: Checkpoint, *adapters: OpenAdapter) -> Arrays:
    return {name: whole(tensor) for name, tensor in merge_adapters(checkpoint, adapters).tensors.items()}


def original(name: str, checkpoint: Checkpoint | None = None) -> np.ndarray:
    return whole((checkpoint or base()).tensors[name])


def product(content: Arrays, module: str) -> np.ndarray:
    return content[f"{module}.lora_B.weight"] @ content[f"{module}.lora_A.weight"]


FOREVER = "(.+)+X"


@pytest.mark.parametrize(
    "keys", [{"target_modules": FOREVER}, {"rank_pattern": {FOREVER: 4}}, {"alpha_pattern": {FOREVER: 4}}]
)
def test_patterns_without_end_are_refused(keys: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns, "SECONDS", 1)
    with pytest.raises(CheckpointError, match=r"its patterns of modules' names take more than .* list the modules"):
        merged(base(), adapter(factors(QUERY, 16, 16), **keys))


def test_a_matrix_becomes_its_sum_with_the_scaled_product_and_the_others_stay() -> None:
    change = factors(DOWN, 16, 24)
    found = merged(base(), adapter(change))
    np.testing.assert_allclose(  # the last bit of what is added up, which the order of a product's sums decides
        found[f"{DOWN}.weight"], original(f"{DOWN}.weight") + SCALE * product(change, DOWN), rtol=1e-6, atol=2e-7
    )
    for name in SHAPES.keys() - {f"{DOWN}.weight"}:
        np.testing.assert_array_equal(found[name], original(name))


@pytest.mark.parametrize(
    ("keys", "scale"),
    [
        ({"use_rslora": True}, 4 / math.sqrt(2)),
        ({"r": 7, "rank_pattern": {"down_proj": 2}}, 2),
        ({"alpha_pattern": {r"mlp\..*": 1}}, 0.5),
        ({"r": 7, "use_rslora": True, "rank_pattern": {DOWN: 2}, "alpha_pattern": {"down_proj": 3}}, 3 / math.sqrt(2)),
    ],
)
def test_scales(keys: dict[str, Any], scale: float) -> None:
    change = factors(DOWN, 16, 24)
    found = merged(base(), adapter(change, **keys))[f"{DOWN}.weight"]
    np.testing.assert_allclose(found, original(f"{DOWN}.weight") + np.float32(scale) * product(change, DOWN), rtol=1e-5)


def test_several_adapters_are_added_each_with_its_weight() -> None:
    first, second = factors(DOWN, 16, 24), factors(DOWN, 16, 24, seed=2, rank=3)
    found = merged(base(), adapter(first, 0.5), adapter(second, -0.25, r=3))[f"{DOWN}.weight"]
    expected = original(f"{DOWN}.weight") + 0.5 * 2 * product(first, DOWN) - 0.25 * 4 / 3 * product(second, DOWN)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("prefix", ["base_model.model.", ""])
@pytest.mark.parametrize("end", ["weight", "default.weight"])
def test_names_with_and_without_what_peft_puts_around_them(prefix: str, end: str) -> None:
    change = factors(DOWN, 16, 24)
    renamed = {name.replace("weight", end): array for name, array in change.items()}
    found = merged(base(), adapter(renamed, prefix=prefix))
    np.testing.assert_array_equal(found[f"{DOWN}.weight"], merged(base(), adapter(change))[f"{DOWN}.weight"])


def test_base_and_adapter_of_different_classes_of_a_family() -> None:
    """One saved without its head has names without a prefix."""
    shapes = {name.removeprefix("model."): shape for name, shape in SHAPES.items() if not name.startswith(HEAD)}
    change = factors(DOWN, 16, 24)
    found = merged(base(shapes=shapes), adapter(change))[f"{DOWN}.weight"]
    bare = {name.removeprefix("model."): array for name, array in change.items()}
    np.testing.assert_array_equal(found, merged(base(shapes=shapes), adapter(bare))[f"{DOWN}.weight"])
    assert not np.array_equal(found, original("layers.0.mlp.down_proj.weight", base(shapes=shapes)))


def test_gpt2_has_its_matrices_the_other_way_round() -> None:
    shapes = {f"{CONV}.weight": (16, 48), "transformer.wte.weight": (10, 16)}
    change = factors(CONV, 48, 16)
    found = merged(base(GPT2, shapes), adapter(change))[f"{CONV}.weight"]
    expected = original(f"{CONV}.weight", base(GPT2, shapes)) + SCALE * product(change, CONV).T
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_square_matrices_of_gpt2_too() -> None:
    name = "transformer.h.0.attn.c_proj"
    shapes = {f"{name}.weight": (16, 16), "transformer.wte.weight": (10, 16)}
    change = factors(name, 16, 16)
    found = merged(base(GPT2, shapes), adapter(change))[f"{name}.weight"]
    expected = original(f"{name}.weight", base(GPT2, shapes)) + SCALE * product(change, name).T
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def dora(weight: np.ndarray, change: np.ndarray, magnitude: np.ndarray) -> np.ndarray:
    """weight, change: [outputs, inputs]."""
    moved = weight + SCALE * change
    return magnitude[:, None] * moved / np.linalg.norm(moved, axis=1, keepdims=True)


def test_dora_gives_each_output_its_magnitude() -> None:
    change = factors(DOWN, 16, 24) | arrays(3, **{f"{DOWN}.lora_magnitude_vector": (16,)})
    found = merged(base(), adapter(change, use_dora=True))[f"{DOWN}.weight"]
    expected = dora(original(f"{DOWN}.weight"), product(change, DOWN), change[f"{DOWN}.lora_magnitude_vector"])
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_dora_of_gpt2() -> None:
    shapes = {f"{CONV}.weight": (16, 48), "transformer.wte.weight": (10, 16)}
    change = factors(CONV, 48, 16) | arrays(3, **{f"{CONV}.lora_magnitude_vector": (48,)})
    found = merged(base(GPT2, shapes), adapter(change, use_dora=True))[f"{CONV}.weight"]
    weight = original(f"{CONV}.weight", base(GPT2, shapes)).T
    expected = dora(weight, product(change, CONV), change[f"{CONV}.lora_magnitude_vector"]).T
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_an_embeddings_matrices_are_stored_transposed() -> None:
    change = words(EMBEDDING)
    found = merged(base(), adapter(change))[f"{EMBEDDING}.weight"]
    delta = (change[f"{EMBEDDING}.lora_embedding_B"] @ change[f"{EMBEDDING}.lora_embedding_A"]).T
    np.testing.assert_allclose(found, original(f"{EMBEDDING}.weight") + SCALE * delta, rtol=1e-5, atol=1e-6)


def test_whole_tensors_take_the_place_of_the_bases() -> None:
    """Biases, and modules that were trained and saved whole."""
    change = arrays(4, **{f"{NORM}.weight": (16,), f"{QUERY}.base_layer.bias": (16,), f"{HEAD}.weight": (10, 16)})
    found = merged(base(), adapter(change, modules_to_save=["norm", "lm_head"], bias="lora_only"))
    np.testing.assert_array_equal(found[f"{NORM}.weight"], change[f"{NORM}.weight"])
    np.testing.assert_array_equal(found[f"{QUERY}.bias"], change[f"{QUERY}.base_layer.bias"])
    np.testing.assert_array_equal(found[f"{HEAD}.weight"], change[f"{HEAD}.weight"])


def test_what_peft_writes_twice_counts_once() -> None:
    right = arrays(4, **{f"{NORM}.weight": (16,)})
    copies = {f"{NORM}.original_module.weight": np.zeros(16), f"{NORM}.modules_to_save.weight": np.ones(16)}
    found = merged(base(), adapter(right | copies, modules_to_save=["norm"]))
    np.testing.assert_array_equal(found[f"{NORM}.weight"], right[f"{NORM}.weight"])


def test_the_bias_behind_b_is_added() -> None:
    change = factors(QUERY, 16, 16) | arrays(5, **{f"{QUERY}.lora_B.bias": (16,)})
    found = merged(base(), adapter(change, 0.5, lora_bias=True))[f"{QUERY}.bias"]
    expected = original(f"{QUERY}.bias") + 0.5 * SCALE * change[f"{QUERY}.lora_B.bias"]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_rows_of_single_words() -> None:
    rows = arrays(6, **{f"{EMBEDDING}.token_adapter.trainable_tokens_delta": (3, 16)})
    expected = original(f"{EMBEDDING}.weight")
    expected[[7, 2, 9]] = next(iter(rows.values()))
    for indices in ([7, 2, 9], {"embed_tokens": [7, 2, 9]}):
        found = merged(base(), adapter(rows, trainable_token_indices=indices))
        np.testing.assert_array_equal(found[f"{EMBEDDING}.weight"], expected)
        np.testing.assert_array_equal(found[f"{HEAD}.weight"], original(f"{HEAD}.weight"))


def test_a_head_that_the_base_lacks_is_added() -> None:
    shapes = {"bert.embeddings.word_embeddings.weight": (10, 16)}
    change = arrays(7, **{"classifier.weight": (3, 16), "classifier.bias": (3,)})
    found = merged(base(BERT, shapes), adapter(change, modules_to_save=["classifier", "score"], task_type="SEQ_CLS"))
    np.testing.assert_array_equal(found["classifier.weight"], change["classifier.weight"])


def test_a_vocabulary_may_grow() -> None:
    change = arrays(8, **{f"{EMBEDDING}.weight": (12, 16), f"{HEAD}.weight": (12, 16)})
    result = merge_adapters(base(), [adapter(change)])
    assert result.config["vocab_size"] == 12
    assert {result.tensors[f"{name}.weight"].shape for name in (EMBEDDING, HEAD)} == {(12, 16)}


@pytest.mark.parametrize(
    ("change", "keys"),
    [
        (factors(DOWN, 16, 24), {}),
        (arrays(9, **{f"{EMBEDDING}.weight": (10, 16)}), {}),
        (arrays(9, **{f"{EMBEDDING}.weight": (12, 16)}), {}),
        (arrays(9, **{f"{EMBEDDING}.token_adapter.trainable_tokens_delta": (1, 16)}), {"trainable_token_indices": [4]}),
    ],
)
def test_a_tied_head_follows_what_is_changed_in_place(change: Arrays, keys: dict[str, Any]) -> None:
    result = merge_adapters(tied(), [adapter(change, **keys)])
    assert result.config["tie_word_embeddings"] is True
    assert f"{HEAD}.weight" not in result.tensors


@pytest.mark.parametrize(
    ("change", "keys"),
    [
        (words(EMBEDDING), {}),
        (factors(HEAD, 10, 16), {}),
        (arrays(9, **{f"{EMBEDDING}.weight": (10, 16)}), {"modules_to_save": ["embed_tokens"]}),
        (arrays(9, **{f"{HEAD}.weight": (10, 16)}), {"modules_to_save": ["lm_head"]}),
    ],
)
def test_a_tied_pair_of_which_one_is_changed_is_no_longer_tied(change: Arrays, keys: dict[str, Any]) -> None:
    """As the adapter was trained, and as PEFT runs it; PEFT's merge changes both, and warns."""
    result = merge_adapters(tied(), [adapter(change, **keys)])
    assert result.config["tie_word_embeddings"] is False
    changed, kept = (HEAD, EMBEDDING) if any(name.startswith(HEAD) for name in change) else (EMBEDDING, HEAD)
    before = original(f"{EMBEDDING}.weight", tied())
    np.testing.assert_array_equal(whole(result.tensors[f"{kept}.weight"]), before)
    assert not np.array_equal(whole(result.tensors[f"{changed}.weight"]), before)
    assert {result.tensors[f"{name}.weight"].name for name in (HEAD, EMBEDDING)} == {
        f"{HEAD}.weight",
        f"{EMBEDDING}.weight",
    }


def test_a_copy_of_the_base_comes_before_what_is_added_to_it() -> None:
    """PEFT saves embeddings with the adapter where they have low-rank matrices; all see the copy, one the change."""
    copy = arrays(9, **{f"{HEAD}.base_layer.weight": (10, 16)})
    change = factors(HEAD, 10, 16)
    result = merge_adapters(tied(), [adapter(change | copy, 0.5)])
    stored = copy[f"{HEAD}.base_layer.weight"]
    np.testing.assert_array_equal(whole(result.tensors[f"{EMBEDDING}.weight"]), stored)
    expected = stored + 0.5 * SCALE * product(change, HEAD)
    np.testing.assert_allclose(whole(result.tensors[f"{HEAD}.weight"]), expected, rtol=1e-5, atol=1e-6)


def test_without_adapters_a_checkpoint_stays_what_it_is() -> None:
    checkpoint = base()
    assert merge_adapters(checkpoint, []) is checkpoint


def refusal(kind: type[Exception], message: str) -> Any:
    return pytest.raises(kind, match=message)


@pytest.mark.parametrize(
    ("change", "keys", "message"),
    [
        (factors("model.layers.7.mlp.down_proj", 16, 24), {}, r"matching nothing \(1\):\n    model.layers.7.*lora_\*"),
        (factors(DOWN, 16, 24), {"target_modules": ["q_proj"]}, r"down_proj.lora_\* \(not one of target_modules"),
        (arrays(1, **{"model.extra.weight": (2,)}), {}, r"matching nothing \(1\):\n    model.extra.weight"),
        (arrays(1, **{f"{DOWN}.lora_E.weight": (2,)}), {}, r"matching nothing \(1\):\n    .*lora_E.weight"),
        (arrays(1, **{f"{DOWN}.lora_A.weight": (RANK, 24)}), {}, r"matching nothing \(1\):\n    .*down_proj.lora_A"),
        (factors(DOWN, 16, 23), {}, r"down_proj has A \[2, 23\] and B \[16, 2\], expected \[2, 24\] and \[16, 2\]"),
        (factors(DOWN, 16, 24, rank=3), {}, r"down_proj has A \[3, 24\] and B \[16, 3\], expected \[2, 24\]"),
        (factors(NORM, 16, 16), {}, r"model.norm is no matrix, but has shape \[16\]"),
        (factors(DOWN, 16, 24), {"use_dora": True}, "down_proj has no magnitude, and use_dora is True"),
        (factors(DOWN, 16, 24), {"lora_bias": True}, "down_proj has no bias behind B, and lora_bias is True"),
        (
            factors(DOWN, 16, 24) | arrays(1, **{f"{DOWN}.lora_magnitude_vector": (16,)}),
            {},
            "down_proj has a magnitude, and use_dora is False",
        ),
        (
            factors(DOWN, 16, 24) | arrays(1, **{f"{DOWN}.lora_magnitude_vector": (15,)}),
            {"use_dora": True},
            r"down_proj has a magnitude \[15\], expected \[16\]",
        ),
        (arrays(1, **{f"{NORM}.weight": (15,)}), {}, r"model.norm.weight has shape \[15\], expected \[16\]"),
        (arrays(1, **{"new.weight": ()}), {"modules_to_save": ["new"]}, r"new.weight has shape \[\]"),
        (
            factors(DOWN, 16, 24) | arrays(1, **{f"{DOWN}.lora_B.bias": (16,)}),
            {"lora_bias": True},
            r"down_proj has a lora_bias \[16\], and the base no such bias",
        ),
        (
            arrays(1, **{f"{EMBEDDING}.token_adapter.trainable_tokens_delta": (2, 16)}),
            {"trainable_token_indices": [1]},
            r"embed_tokens has rows of shape \[2, 16\] for 1 words",
        ),
        (
            arrays(1, **{f"{EMBEDDING}.token_adapter.trainable_tokens_delta": (1, 16)}),
            {"trainable_token_indices": [10]},
            "embed_tokens has rows",
        ),
        (
            arrays(1, **{f"{EMBEDDING}.token_adapter.trainable_tokens_delta": (1, 16)}),
            {},
            r"embed_tokens \(rows of single words\)",
        ),
    ],
)
def test_tensors_that_do_not_fit_the_base(change: Arrays, keys: dict[str, Any], message: str) -> None:
    with refusal(TensorError, message):
        merge_adapters(base(), [adapter(change, **keys)])


def test_all_problems_of_an_adapter_come_in_one_error() -> None:
    change = factors(DOWN, 16, 23) | factors("nowhere", 2, 2) | factors(QUERY, 15, 16)
    with refusal(TensorError, r"(?s)matching nothing \(1\).*nowhere.*not fitting \(2\)"):
        merge_adapters(base(), [adapter(change)])


@pytest.mark.parametrize(
    "second", [arrays(2, **{f"{DOWN}.weight": (16, 24)}), arrays(2, **{f"{NORM}.weight": (16,)}), factors(HEAD, 10, 16)]
)
def test_two_adapters_of_which_one_brings_the_whole_are_refused(second: Arrays) -> None:
    first = factors(DOWN, 16, 24) | arrays(1, **{f"{NORM}.weight": (16,), f"{HEAD}.weight": (10, 16)})
    with refusal(ExportError, "ADAPTER and an adapter before it both change"):
        merge_adapters(base(), [adapter(first), adapter(second)])


def test_a_weight_says_nothing_about_whole_tensors() -> None:
    with refusal(ExportError, r"ADAPTER has the weight 0.5, and brings whole tensors.*model.norm.weight"):
        merge_adapters(base(), [adapter(arrays(1, **{f"{NORM}.weight": (16,)}), 0.5)])


@pytest.mark.parametrize(
    ("change", "keys"),
    [
        (words("shared"), {}),
        (words("encoder.embed_tokens"), {}),
        (arrays(1, **{"shared.weight": (10, 16)}), {"modules_to_save": ["shared"]}),
        (arrays(1, **{"lm_head.weight": (10, 16)}), {"modules_to_save": ["lm_head"]}),
        (arrays(1, **{"shared.token_adapter.trainable_tokens_delta": (1, 16)}), {"trainable_token_indices": [1]}),
    ],
)
def test_embeddings_that_encoder_and_decoder_share_are_left_to_peft(change: Arrays, keys: dict[str, Any]) -> None:
    with refusal(UnsupportedModelError, "which encoder and decoder share.*merge it with PEFT first"):
        merge_adapters(base(T5, {"shared.weight": (10, 16)}), [adapter(change, **keys)])


def test_rows_of_a_tied_head_alone_are_refused() -> None:
    rows = arrays(1, **{f"{HEAD}.token_adapter.trainable_tokens_delta": (1, 16)})
    with refusal(UnsupportedModelError, "replaces rows of a head that is the embedding"):
        merge_adapters(tied(), [adapter(rows, trainable_token_indices={"lm_head": [1]})])


def test_dora_of_an_embedding_is_refused() -> None:
    change = words(EMBEDDING) | arrays(1, **{f"{EMBEDDING}.lora_magnitude_vector": (16,)})
    with refusal(UnsupportedModelError, "has DoRA for an embedding"):
        merge_adapters(base(), [adapter(change, use_dora=True)])


@pytest.mark.parametrize("task_type", ["SEQ_CLS", "TOKEN_CLS", "QUESTION_ANS", "FEATURE_EXTRACTION"])
def test_heads_that_are_not_built_for_a_decoder_are_refused(task_type: str) -> None:
    with refusal(UnsupportedModelError, f"task_type {task_type}.*does not build for llama"):
        merge_adapters(base(), [adapter(factors(DOWN, 16, 24), task_type=task_type)])


def test_provenance_says_which_adapters_with_which_weights() -> None:
    result = merge_adapters(base(), [adapter(factors(DOWN, 16, 24), 0.5)])
    assert result.source["adapters"] == [{"name": "ADAPTER", "weight": 0.5}]


TOKENIZER = {"tokenizer.json": b"new", "tokenizer_config.json": b"new"}


@pytest.fixture
def with_files() -> Callable[..., Mapping[str, bytes]]:
    def files(*adapters: OpenAdapter) -> Mapping[str, bytes]:
        old = [
            "tokenizer.json",
            "special_tokens_map.json",
            "generation_config.json",
            "modules.json",
            "1_Pooling/config.json",
        ]
        checkpoint = Checkpoint(LLAMA, base().tensors, dict.fromkeys(old, b"old"), {})
        return merge_adapters(checkpoint, adapters).files

    return files


def test_an_adapters_tokenizer_takes_the_place_of_the_whole_tokenizer(with_files: Callable[..., Any]) -> None:
    files = with_files(adapter({}, files={**TOKENIZER, "generation_config.json": b"new"}))
    assert {name: content for name, content in files.items() if content == b"new"} == TOKENIZER
    assert "special_tokens_map.json" not in files
    assert files["generation_config.json"] == files["modules.json"] == b"old"


def test_an_adapters_modules_take_the_place_of_a_sentence_encoders(with_files: Callable[..., Any]) -> None:
    files = with_files(adapter({}, files={"modules.json": b"new", "2_Dense/config.json": b"new"}))
    assert {"modules.json", "2_Dense/config.json"} <= files.keys()
    assert "1_Pooling/config.json" not in files
    assert files["tokenizer.json"] == b"old"


def test_adapters_with_different_tokenizers_are_refused(with_files: Callable[..., Any]) -> None:
    assert with_files(adapter({}, files=TOKENIZER), adapter({}, files=TOKENIZER))["tokenizer.json"] == b"new"
    other = {**TOKENIZER, "tokenizer.json": b"other"}
    with refusal(ExportError, "bring different files of a tokenizer"):
        with_files(adapter({}, files=TOKENIZER), adapter({}, files=other))


def test_an_adapters_task_is_the_models_but_not_that_of_a_sentence_encoder() -> None:
    """sentence-transformers trains its adapters with task_type FEATURE_EXTRACTION."""
    adapters = [adapter({}, task_type="FEATURE_EXTRACTION"), adapter({})]
    assert task_of_adapters(adapters, {}) == "feature-extraction"
    assert task_of_adapters(adapters[1:], {}) is None
    assert task_of_adapters(adapters, {"modules.json": b"[]"}) is None

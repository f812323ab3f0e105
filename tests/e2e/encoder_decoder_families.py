"""Tiny encoder-decoders, one list for all checks: seeded, made by transformers, which is also the reference."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers as hf

import edgellm_export
from comparison import Expected, trimmed
from edgellm_export.exporters.contract import GlobalAttention
from families import save_tokenizer, tiny_tokenizer

LONGEST = 48  # tokens of a source or a target, where there is a table of positions
PAD, EOS = 0, 2
ENCODER_WINDOW = 9  # T5Gemma's
UNCAPPED = {"attn_logit_softcapping": None, "final_logit_softcapping": None}

Shared = Callable[[str, Callable[[Path], Any]], Path]  # the fixture `shared`


@dataclass(frozen=True)
class Family:
    """`config` makes the transformers config. `end_scale`: the factor of the head's row of the end token, so that
    searches find it in some of their sequences, but not at once. `global_attention`: of LED's first token."""

    name: str
    config: Callable[[], hf.PretrainedConfig]
    end_scale: float
    global_attention: GlobalAttention = "none"


def _t5(config_class: type[hf.PretrainedConfig], **changes: Any) -> Callable[[], hf.PretrainedConfig]:
    # transformers gives its decoder a cache of as many layers as the encoder has: no fewer, then.
    sizes = {"vocab_size": 131, "d_model": 48, "d_kv": 16, "d_ff": 88, "num_heads": 5, "num_layers": 3}
    ids = {"pad_token_id": PAD, "eos_token_id": EOS, "decoder_start_token_id": PAD}
    buckets = {"relative_attention_num_buckets": 12, "relative_attention_max_distance": 20}
    return lambda: config_class(**{**sizes, "num_decoder_layers": 2, **ids, **buckets, **changes})


def _longt5(**changes: Any) -> Callable[[], hf.PretrainedConfig]:
    kind = {"encoder_attention_type": "transient-global", "feed_forward_proj": "gated-gelu"}
    return _t5(hf.LongT5Config, tie_word_embeddings=False, **kind, **changes)


def _bart(config_class: type[hf.PretrainedConfig], **changes: Any) -> Callable[[], hf.PretrainedConfig]:
    sizes = {"vocab_size": 131, "d_model": 48, "encoder_layers": 3, "decoder_layers": 2, "encoder_ffn_dim": 88}
    heads = {"encoder_attention_heads": 3, "decoder_attention_heads": 6, "decoder_ffn_dim": 72}
    ids = {"pad_token_id": PAD, "bos_token_id": 1, "eos_token_id": EOS, "decoder_start_token_id": EOS}
    return lambda: config_class(
        **{**sizes, **heads, **ids, "max_position_embeddings": LONGEST, "forced_eos_token_id": None, **changes}
    )


def _t5gemma(tied: bool = True, **changes: Any) -> Callable[[], hf.PretrainedConfig]:
    """Windows shorter than texts, sides of unlike sizes, and caps that bend."""
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "query_pre_attn_scalar": 20}
    ids = {"pad_token_id": PAD, "bos_token_id": 1, "eos_token_id": EOS}
    both = {"vocab_size": 131, "max_position_embeddings": LONGEST, **heads, **ids}
    both |= {"tie_word_embeddings": tied, "attn_logit_softcapping": 3.0, "final_logit_softcapping": 8.0}
    encoder = {"hidden_size": 64, "intermediate_size": 72, "num_hidden_layers": 3, "sliding_window": ENCODER_WINDOW}
    decoder = {"hidden_size": 48, "intermediate_size": 88, "num_hidden_layers": 2, "sliding_window": 7}
    sides = {"encoder": {**both, **encoder, **changes}, "decoder": {**both, **decoder, **changes}}
    return lambda: hf.T5GemmaConfig(**sides, vocab_size=131, tie_word_embeddings=tied, **ids)


def _led(**changes: Any) -> Callable[[], hf.PretrainedConfig]:
    lengths = {"max_encoder_position_embeddings": LONGEST, "max_decoder_position_embeddings": LONGEST}
    return _bart(hf.LEDConfig, **lengths, **changes)


def _prophetnet(**changes: Any) -> Callable[[], hf.PretrainedConfig]:
    sizes = {"vocab_size": 131, "hidden_size": 48, "num_encoder_layers": 3, "num_decoder_layers": 2}
    heads = {"num_encoder_attention_heads": 3, "num_decoder_attention_heads": 6}
    inner = {"encoder_ffn_dim": 88, "decoder_ffn_dim": 72}
    ids = {"pad_token_id": PAD, "bos_token_id": EOS, "eos_token_id": EOS, "decoder_start_token_id": EOS}
    buckets = {"num_buckets": 12, "relative_max_distance": 20, "max_position_embeddings": LONGEST + 2}
    return lambda: hf.ProphetNetConfig(**{**sizes, **heads, **inner, **ids, **buckets, **changes})


FAMILIES = [
    Family("t5", _t5(hf.T5Config), -1.5),
    Family("t5-gated", _t5(hf.T5Config, feed_forward_proj="gated-gelu", tie_word_embeddings=False), 2.0),
    Family("mt5", _t5(hf.MT5Config, num_heads=3), 3.0),
    Family("umt5", _t5(hf.UMT5Config, num_heads=3), 6.0),
    Family("t5gemma", _t5gemma(), 3.0),
    Family("t5gemma-uncapped", _t5gemma(tied=False, attention_bias=True, num_key_value_heads=4, **UNCAPPED), -3.0),
    Family("longt5", _t5(hf.LongT5Config, local_radius=5), 3.0),
    Family("longt5-global", _longt5(local_radius=3, global_block_size=4), 3.0),
    Family("bart", _bart(hf.BartConfig), -2.0),
    Family("bart-relu", _bart(hf.BartConfig, activation_function="relu", scale_embedding=True), 3.5),
    Family("blenderbot", _bart(hf.BlenderbotConfig), -4.0),
    Family("blenderbot-small", _bart(hf.BlenderbotSmallConfig, scale_embedding=True), -2.0),
    Family("m2m_100", _bart(hf.M2M100Config, scale_embedding=True, activation_function="relu"), -2.0),
    Family("mbart", _bart(hf.MBartConfig, scale_embedding=True), -1.0),
    Family(
        "led-near", _led(attention_window=[8, 4, 4], activation_function="gelu_new", tie_word_embeddings=False), 2.0
    ),
    Family("led-first", _led(attention_window=[8, 4, 4]), 2.0, global_attention="first"),
    Family("marian", _bart(hf.MarianConfig, scale_embedding=True, activation_function="swish"), 7.0),
    Family("marian-apart", _bart(hf.MarianConfig, share_encoder_decoder_embeddings=False), -4.0),
    Family("pegasus", _bart(hf.PegasusConfig, scale_embedding=True, activation_function="relu"), 3.0),
    Family("prophetnet", _prophetnet(), -1.0),
    Family("prophetnet-one", _prophetnet(ngram=1, tie_word_embeddings=False, activation_function="relu"), 3.0),
]
BY_NAME = {family.name: family for family in FAMILIES}


def make_model(family: Family) -> Any:
    """The seeded torch model in float32, eager. Norms and biases are random too: 1 and 0 would hide mistakes."""
    torch.manual_seed(sum(map(ord, family.name)))
    config = family.config()
    config._attn_implementation = "eager"
    model = hf.AutoModelForSeq2SeqLM.from_config(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad:  # sinusoids
                continue
            noise = torch.randn_like(parameter)
            parameter.add_(noise * 0.2) if parameter.ndim == 1 else parameter.copy_(noise * 0.15)
            if name.endswith("Attention.q.weight"):  # T5 does not scale: all would look at one token
                parameter.mul_(0.25)
        if hasattr(model, "final_logits_bias"):
            model.final_logits_bias.copy_(torch.randn_like(model.final_logits_bias) * 0.3)
        if (
            config.model_type in ("t5", "umt5") and config.tie_word_embeddings
        ):  # divided by the root of d_model in front of the head
            model.shared.weight *= 7
        if config.model_type == "t5gemma":
            _unlike_its_input(model)
        model.get_output_embeddings().weight[EOS] *= family.end_scale
    model.generation_config = hf.GenerationConfig.from_model_config(config)
    if family.global_attention == "first":
        model.register_forward_pre_hook(_with_first_global, with_kwargs=True)
        model.get_encoder().register_forward_pre_hook(_with_first_global, with_kwargs=True)
    return model


def _with_first_global(_model: Any, given: Any, options: dict[str, Any]) -> Any:
    """A call of LED's encoder, or of the whole, in which the first token of each source has global attention."""
    if (ids := options.get("input_ids")) is not None:
        options["global_attention_mask"] = torch.zeros_like(ids)
        options["global_attention_mask"][:, 0] = 1
    return given, options


def _unlike_its_input(model: Any) -> None:
    """T5Gemma with more from its blocks and less from its large embeddings, whose tokens would repeat."""
    for name, parameter in model.named_parameters():
        if ".post_" in name:
            parameter.add_(2)
        elif name.endswith("q_proj.weight"):
            parameter.mul_(4 if model.config.encoder.attn_logit_softcapping else 1.5)
    model.model.decoder.norm.weight.sub_(2)


def save_checkpoint(model: Any, path: Path) -> Path:
    model.save_pretrained(path)
    if model.config.model_type == "t5gemma":
        _shorten_window(path / "config.json")
    save_tokenizer(tiny_tokenizer(model.config.vocab_size), path)
    return path


def _shorten_window(file: Path) -> None:
    """T5Gemma's encoder sees `sliding_window` tokens to either side in transformers 5, one less in 4.57, which runs
    these."""
    assert hf.__version__.startswith("4.")
    config = json.loads(file.read_text())
    config["encoder"]["sliding_window"] = ENCODER_WINDOW - 1
    file.write_text(json.dumps(config))


def checkpoint(name: str, shared: Shared) -> Path:
    return shared(f"checkpoints/{name}", lambda path: save_checkpoint(make_model(BY_NAME[name]), path))


def package(name: str, precision: Any, shared: Shared) -> Path:
    """The package of a family, its weights rounded as they are."""
    options: dict[str, Any] = {"precision": precision, "verify_quality": False, "calibrate": False}
    options["global_attention"] = BY_NAME[name].global_attention
    return shared(
        f"packages/{name}-{precision}", lambda path: edgellm_export.export(checkpoint(name, shared), path, **options)
    )


def sources(*lengths: int, seed: int = 0) -> list[np.ndarray]:
    """Random tokens, none of them special, closed by an end token as tokenizers close them."""
    rng = np.random.default_rng(seed)
    return [np.append(rng.integers(3, 131, length - 1), EOS) for length in lengths]


def padded(rows: list[np.ndarray]) -> dict[str, torch.Tensor]:
    """What transformers takes of a batch."""
    ids, mask = torch.full((2, len(rows), max(map(len, rows))), PAD)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
        mask[i, : len(row)] = 1
    return {"input_ids": ids, "attention_mask": mask}


@torch.no_grad()
def reference_logits(model: Any, source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """[length, vocab] behind each token of the target. ProphetNet's are those of a token at a time, as `generate` reads
    them: its forward of several mixes up what their predicting streams add by distance."""
    if model.config.model_type != "prophetnet":
        return model(**padded([source]), decoder_input_ids=torch.tensor(target[None])).logits[0].numpy()
    given, cache, logits = padded([source]), None, []
    given = {"encoder_outputs": model.get_encoder()(**given), "attention_mask": given["attention_mask"]}
    for token in target:
        out = model(**given, decoder_input_ids=torch.tensor([[token]]), past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        logits.append(out.logits[0, 0])
    return torch.stack(logits).numpy()


@torch.no_grad()
def hf_generate(model: Any, rows: list[np.ndarray], **options: Any) -> list[Expected]:
    """Of each source its new tokens, the start excluded, and the scores of beam search."""
    if model.config.model_type == "t5gemma":  # 4.57 keeps a window of the source alone, too
        options["cache_implementation"] = "dynamic_full"
    out = model.generate(**padded(rows), return_dict_in_generate=True, output_scores=True, **options)
    start = len(options["decoder_input_ids"][0]) if "decoder_input_ids" in options else 1
    tokens = [trimmed(row[start:].tolist(), EOS) for row in out.sequences]
    scores = getattr(out, "sequences_scores", None)
    each = len(tokens) // len(rows)
    return [
        Expected(tokens[i : i + each], None if scores is None else scores[i : i + each].tolist())
        for i in range(0, len(tokens), each)
    ]

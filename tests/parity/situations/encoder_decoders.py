"""Encoder-decoders, a line for each way in which a config differs."""

from __future__ import annotations

from typing import Any

from making import Situation, byte_pairs, edited, model, removed, without

SPECIAL = ("<pad>", "<s>", "</s>", "<unk>")
T5: dict[str, Any] = {
    "d_model": 48,
    "d_kv": 16,
    "d_ff": 88,
    "num_heads": 3,
    "num_layers": 2,
    "num_decoder_layers": 2,
    "pad_token_id": 0,
    "eos_token_id": 2,
    "decoder_start_token_id": 0,
}
BART: dict[str, Any] = {
    "d_model": 48,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_ffn_dim": 88,
    "decoder_ffn_dim": 72,
    "encoder_attention_heads": 3,
    "decoder_attention_heads": 3,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
}
GEMMA: dict[str, Any] = {
    "hidden_size": 48,
    "intermediate_size": 88,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "query_pre_attn_scalar": 20,
    "attn_logit_softcapping": 3.0,
    "final_logit_softcapping": 8.0,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
PROPHETNET: dict[str, Any] = {
    "hidden_size": 48,
    "num_encoder_layers": 2,
    "num_decoder_layers": 2,
    "encoder_ffn_dim": 88,
    "decoder_ffn_dim": 72,
    "num_encoder_attention_heads": 3,
    "num_decoder_attention_heads": 3,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
}
CONFIG, GENERATION = "config.json", "generation_config.json"
SUMMARIES = {
    "num_beams": 3,
    "no_repeat_ngram_size": 2,
    "length_penalty": 2.0,
    "early_stopping": True,
    "min_length": 4,
    "forced_bos_token_id": 1,
}


def tokenizer(hf: Any) -> Any:
    """Ends each text with </s>."""
    from tokenizers import processors

    tokenizer = byte_pairs(SPECIAL)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 2)])
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_input_names=["input_ids", "attention_mask"], **names
    )


def rows(config: str, name: str, usual: dict[str, Any]) -> Any:
    def row(ending: str, *edits: Any, **changes: Any) -> Situation:
        full = f"{name}-{ending}" if ending else name
        before = changes.pop("before", None)
        settings = {**usual, **changes}
        return model(full, config, "AutoModelForSeq2SeqLM", *edits, tokenizer=tokenizer, before=before, **settings)

    return row


t5, mt5 = rows("T5Config", "t5", T5), rows("MT5Config", "mt5", T5)
longt5 = rows("LongT5Config", "longt5", {**T5, "local_radius": 9})
bart, mbart = rows("BartConfig", "bart", BART), rows("MBartConfig", "mbart", BART)
LENGTHS = {"max_encoder_position_embeddings": 128, "max_decoder_position_embeddings": 112}
led = rows("LEDConfig", "led", {**BART, **LENGTHS, "attention_window": 16})
prophetnet = rows("ProphetNetConfig", "prophetnet", PROPHETNET)
blenderbot = rows("BlenderbotConfig", "blenderbot", BART)
blenderbot_small = rows("BlenderbotSmallConfig", "blenderbot-small", BART)
m2m_100, umt5 = rows("M2M100Config", "m2m_100", BART), rows("UMT5Config", "umt5", T5)
marian, pegasus = rows("MarianConfig", "marian", BART), rows("PegasusConfig", "pegasus", BART)

ENCODERS_SEE_LESS = dict.fromkeys(("logits", "generated"), "4.57's encoders see a token less to either side")


def t5gemma(ending: str, *edits: Any, side: dict[str, Any] | None = None, **changes: Any) -> Situation:
    """`side`: changes of encoder and decoder. Windows are wider than texts."""
    encoder = {**GEMMA, "vocab_size": 360, "sliding_window": 512, **(side or {})}
    wide = {"hidden_size": 64, "num_hidden_layers": 3}
    ids = {name: GEMMA[name] for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    config = {"encoder": {**encoder, **wide}, "decoder": dict(encoder), "vocab_size": 360, **ids}
    return rows("T5GemmaConfig", "t5gemma", config)(ending, *edits, **changes)


def own_head(model: Any) -> None:
    """A head that is not the embedding, whatever the config says."""
    import torch

    torch.manual_seed(5)
    model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight) * 0.2)


SITUATIONS = [
    t5(""),
    t5("untied", tie_word_embeddings=False),
    t5("untied-gated", tie_word_embeddings=False, feed_forward_proj="gated-gelu"),
    t5(
        "untied-without-key",
        without(CONFIG, "tie_word_embeddings"),
        tie_word_embeddings=False,
        differs=dict.fromkeys(("logits", "generated"), "4.57 ties a head whose config says nothing"),
    ),
    t5("gated-silu", feed_forward_proj="gated-silu"),
    t5("buckets", relative_attention_num_buckets=12, relative_attention_max_distance=20),
    t5("eps", layer_norm_epsilon=1e-3),
    t5("without-generation-config", removed(GENERATION)),
    t5("fewer-decoder-layers", num_decoder_layers=1),
    led(""),
    led("windows", attention_window=[16, 8]),
    led("wide", attention_window=128),
    led("global", options={"global_attention": "first"}),
    led("global-windows", attention_window=[8, 32], options={"global_attention": "first"}),
    led("scaled", scale_embedding=True),
    led(
        "odd-window", edited(CONFIG, attention_window=[16, 7]), refused="attention_window is .16, 7., expected an even"
    ),
    led("without-generation-config", removed(GENERATION)),
    prophetnet(""),
    prophetnet("untied", tie_word_embeddings=False, versions=("5",)),
    prophetnet("ngrams", ngram=3, num_buckets=8, relative_max_distance=10, activation_function="relu"),
    prophetnet("one", ngram=1),
    prophetnet("padded", edited(CONFIG, pad_token_id=1), refused="pad_token_id"),
    prophetnet("without-generation-config", removed(GENERATION)),
    longt5(""),
    longt5("untied", tie_word_embeddings=False, feed_forward_proj="gated-gelu"),
    longt5("global", encoder_attention_type="transient-global", global_block_size=8),
    longt5("global-gated", encoder_attention_type="transient-global", feed_forward_proj="gated-gelu"),
    longt5("rounded-sums", encoder_attention_type="transient-global", global_block_size=10, refused="a power of 2"),
    longt5("wide", local_radius=127),
    t5gemma(""),
    t5gemma("windows", side={"sliding_window": 16}, differs=ENCODERS_SEE_LESS),
    t5gemma("untied", side={"tie_word_embeddings": False}, tie_word_embeddings=False),
    t5gemma("uncapped", side={"attn_logit_softcapping": None, "final_logit_softcapping": None, "attention_bias": True}),
    t5gemma("without-generation-config", removed(GENERATION)),
    mt5(""),
    mt5("tied", tie_word_embeddings=True, differs={"logits": "4.57 scales what a tied head reads"}),
    bart(""),
    bart("relu-scaled", activation_function="relu", scale_embedding=True),
    bart("without-generation-config", removed(GENERATION)),
    bart("generation-in-config", removed(GENERATION), edited(CONFIG, **SUMMARIES)),
    bart(
        "generation-in-both",
        edited(CONFIG, num_beams=4),
        edited(GENERATION, num_beams=2),
        differs={"generated": "4.57 lets config.json win while it generates"},
    ),
    bart("beams", edited(GENERATION, **SUMMARIES)),
    bart("unlike-sides", encoder_layers=3, decoder_attention_heads=6, decoder_layers=1),
    blenderbot(""),
    blenderbot("without-generation-config", removed(GENERATION)),
    blenderbot_small("", scale_embedding=True),
    m2m_100("", scale_embedding=True),
    m2m_100("untied", tie_word_embeddings=False, versions=("5",)),  # 4.57 makes up what it left out
    m2m_100("relu", activation_function="relu", scale_embedding=False, pad_token_id=3),
    mbart(""),
    mbart("scaled", scale_embedding=True),
    mbart("without-generation-config", removed(GENERATION)),
    marian("", scale_embedding=True, activation_function="swish"),
    marian("apart", share_encoder_decoder_embeddings=False),
    marian("without-generation-config", removed(GENERATION)),
    marian("bad-words", edited(GENERATION, bad_words_ids=[[0]], num_beams=4, renormalize_logits=True)),
    umt5("tied", tie_word_embeddings=True),
    umt5("untied", tie_word_embeddings=False),
    umt5("without-key", without(CONFIG, "tie_word_embeddings")),
    pegasus("", scale_embedding=True, activation_function="relu"),
    pegasus("without-generation-config", removed(GENERATION)),
]

"""LoRA adapters that PEFT makes for tiny checkpoints, a line for each way in which they differ; the reference runs
them unmerged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from making import Situation, byte_tokenizer, model, roberta_tokenizer, word_piece_tokenizer

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 128,
}
OWN_CLASS = {"tokens": "5 takes the class of the model's type"}
IDS = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
KEYS: dict[str, Any] = {"num_key_value_heads": 1}
GEMMA: dict[str, Any] = {**KEYS, "head_dim": 16, "query_pre_attn_scalar": 16}
GEMMA3N: dict[str, Any] = {
    **KEYS, "head_dim": 16, "num_kv_shared_layers": 1, "layer_types": ["full_attention"] * 2, "laurel_rank": 8,
    "vocab_size_per_layer_input": 360, "hidden_size_per_layer_input": 16, "activation_sparsity_pattern": [0.8, 0.0],
}  # fmt: skip
GPT2: dict[str, Any] = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 128}
T5: dict[str, Any] = {"d_model": 32, "d_kv": 16, "d_ff": 48, "num_layers": 2, "num_heads": 2}
BART: dict[str, Any] = {
    "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48,
    "encoder_attention_heads": 2, "decoder_attention_heads": 2, "max_position_embeddings": 128,
}  # fmt: skip
without_types = partial(word_piece_tokenizer, model_input_names=["input_ids", "attention_mask"])
NEW = ["<new>", "<newer>"]


def tuned(
    name: str,
    config: str,
    head: str,
    *adapters: dict[str, Any],
    weights: tuple[float, ...] = (1.0, 1.0),
    tuned_as: str | None = None,
    grown: bool = False,
    refused: str | None = None,
    tokenizer: Callable[[Any], Any] = byte_tokenizer,
    **settings: Any,
) -> Situation:
    """A checkpoint of the class `head` and `adapters` trained on it, or on what the class `tuned_as` makes of it: each
    the settings of a LoraConfig. `grown`: with tokens of their own, and a tokenizer that has them."""

    def edit(path: Path) -> None:
        for number, each in enumerate(adapters):
            labels = {"num_labels": 3} if tuned_as and tuned_as.endswith("Classification") else {}
            _train(path, path / f"adapter-{number}", tuned_as or head, each, labels, grown=grown)

    made = model(f"lora-{name}", config, head, edit, tokenizer=tokenizer, refused=refused, **settings)
    given = {f"adapter-{number}": weights[number] for number in range(len(adapters))}
    return replace(made, adapters=given)


def _train(base: Path, out: Path, head: str, settings: dict[str, Any], labels: dict[str, int], *, grown: bool) -> None:
    """What training leaves: numbers other than those it began with."""
    import peft
    import torch
    import transformers

    torch.manual_seed(len(out.name) + sum(map(ord, base.name)))
    tuned = getattr(transformers, head).from_pretrained(base, **labels)
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    if grown:
        tokenizer.add_tokens(NEW)
        tuned.resize_token_embeddings(len(tokenizer))
    wrapped = peft.get_peft_model(tuned, peft.LoraConfig(**{"r": 4, "lora_alpha": 8, **settings}))
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if parameter.requires_grad or "lora_B" in name:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    wrapped.save_pretrained(out, save_embedding_layers=True if grown else "auto")
    if grown:
        tokenizer.save_pretrained(out)


def llama(name: str, *adapters: dict[str, Any], **settings: Any) -> Situation:
    return decoder(f"llama-{name}", "LlamaConfig", *adapters, **{**SIZES, **KEYS, **settings})


def tied(name: str, *adapters: dict[str, Any], **settings: Any) -> Situation:
    return llama(f"tied-{name}", *adapters, tie_word_embeddings=True, **settings)


def decoder(name: str, config: str, *adapters: dict[str, Any], **settings: Any) -> Situation:
    return tuned(name, config, "AutoModelForCausalLM", *adapters, **{**IDS, **settings})


def seq2seq(name: str, config: str, *adapters: dict[str, Any], **settings: Any) -> Situation:
    kept = {"decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1, **settings}
    return tuned(name, config, "AutoModelForSeq2SeqLM", *adapters, **kept)


def encoder(name: str, head: str, *adapters: dict[str, Any], config: str = "BertConfig", **settings: Any) -> Situation:
    sizes = SIZES if config != "DistilBertConfig" else {}
    return tuned(name, config, head, *adapters, **{"tokenizer": word_piece_tokenizer, **sizes, **settings})


LINEAR, QUERY = {"target_modules": "all-linear"}, {"target_modules": ["q_proj"]}
LABELS, MASKED = "AutoModelForSequenceClassification", "AutoModelForMaskedLM"
WORDS = {"target_modules": ["query", "word_embeddings"]}
RANKS = {"rank_pattern": {"q_proj": 2, "layers.1.mlp.down_proj": 3}, "alpha_pattern": {"up_proj": 1}}
CONV1D = {"target_modules": ["c_attn", "c_proj", "c_fc"]}
SITUATIONS = [
    llama("all", LINEAR),
    llama("rslora", LINEAR | {"use_rslora": True, "lora_alpha": 5}),
    llama("patterns", LINEAR | RANKS),
    llama("layers", {"target_modules": ["q_proj", "down_proj"], "layers_to_transform": [1]}),
    llama("regex", {"target_modules": r"model\.layers\.\d+\.self_attn\.(q|k)_proj"}),
    llama("excluded", LINEAR | {"exclude_modules": ["1.self_attn.q_proj", "down_proj"]}),
    llama("dora", LINEAR | {"use_dora": True}),
    llama("head", {"target_modules": ["q_proj", "lm_head"]}),
    llama("embedding", {"target_modules": ["q_proj", "embed_tokens"]}),
    llama("both-ends", {"target_modules": ["q_proj", "embed_tokens", "lm_head"]}),
    llama("saved-ends", QUERY | {"modules_to_save": ["embed_tokens", "lm_head"]}),
    llama("saved-norms", QUERY | {"modules_to_save": ["norm", "layernorm"]}),
    llama("words", QUERY | {"trainable_token_indices": [3, 5]}),
    llama("words-of-both", QUERY | {"trainable_token_indices": {"embed_tokens": [3, 5], "lm_head": [4]}}),
    llama("lora-bias", QUERY | {"lora_bias": True}, attention_bias=True),
    llama("bias-all", QUERY | {"bias": "all"}, attention_bias=True, mlp_bias=True),
    llama("bias-of-targets", QUERY | {"bias": "lora_only"}, attention_bias=True),
    llama("gaussian", QUERY | {"init_lora_weights": "gaussian"}),
    llama("orthogonal", QUERY | {"init_lora_weights": "orthogonal"}),
    llama("mica", QUERY | {"init_lora_weights": "mica"}),
    llama("two", LINEAR, QUERY | {"r": 2, "lora_alpha": 7}),
    llama("two-weights", LINEAR, QUERY | {"r": 2, "lora_alpha": 7}, weights=(0.5, -0.25)),
    llama("grown", QUERY | {"modules_to_save": ["embed_tokens", "lm_head"]}, grown=True),
    llama("pissa", QUERY | {"init_lora_weights": "pissa"}, refused="init_lora_weights is 'pissa'"),
    llama("olora", QUERY | {"init_lora_weights": "olora"}, refused="init_lora_weights is 'olora'"),
    tied("all", LINEAR),
    tied("embedding", {"target_modules": ["q_proj", "embed_tokens"]}),
    tied("head", {"target_modules": ["q_proj", "lm_head"]}),
    tied("both-ends", {"target_modules": ["q_proj", "embed_tokens", "lm_head"]}),
    tied("ensured", {"target_modules": ["q_proj", "embed_tokens"], "ensure_weight_tying": True}),
    tied("saved-ends", QUERY | {"modules_to_save": ["embed_tokens", "lm_head"]}),
    tied("saved-embedding", QUERY | {"modules_to_save": ["embed_tokens"]}),
    tied("saved-head", QUERY | {"modules_to_save": ["lm_head"]}),
    tied("saved-ensured", QUERY | {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True}),
    tied("words", QUERY | {"trainable_token_indices": [3, 5]}),
    tied("grown", QUERY, grown=True),
    decoder("mistral", "MistralConfig", LINEAR, **SIZES, **KEYS),
    decoder("qwen2", "Qwen2Config", LINEAR | {"bias": "all"}, **SIZES, **KEYS, differs=OWN_CLASS),
    decoder("qwen3", "Qwen3Config", LINEAR, **SIZES, **KEYS, head_dim=16),
    decoder("phi3", "Phi3Config", LINEAR, **SIZES, **KEYS),
    decoder("phi3-dora", "Phi3Config", LINEAR | {"use_dora": True}, **SIZES, **KEYS),
    decoder("gemma2", "Gemma2Config", LINEAR, **SIZES, **GEMMA),
    decoder("gemma3", "Gemma3TextConfig", LINEAR, **SIZES, **GEMMA),
    decoder("gemma3-words", "Gemma3TextConfig", QUERY | {"trainable_token_indices": [3]}, **SIZES, **GEMMA),
    decoder("gemma3n", "Gemma3nTextConfig", LINEAR, **SIZES, **GEMMA3N, versions=("5",)),  # 4.57's own names
    decoder("starcoder2", "Starcoder2Config", LINEAR | {"bias": "lora_only"}, **SIZES, **KEYS),
    decoder("gpt-neox", "GPTNeoXConfig", LINEAR, **SIZES),
    decoder("gpt2-usual", "GPT2Config", {}, **GPT2),
    decoder("gpt2-all", "GPT2Config", CONV1D, **GPT2),
    decoder("gpt2-dora", "GPT2Config", CONV1D | {"use_dora": True}, **GPT2),
    decoder("gpt2-head", "GPT2Config", {"target_modules": ["c_attn", "lm_head"], "fan_in_fan_out": True}, **GPT2),
    decoder("gpt2-embedding", "GPT2Config", {"target_modules": ["c_attn", "wte"]}, **GPT2),
    decoder("gpt2-saved", "GPT2Config", CONV1D | {"modules_to_save": ["wte", "wpe", "ln_f"]}, **GPT2),
    decoder("gpt2-lora-bias", "GPT2Config", {"target_modules": ["c_attn"], "lora_bias": True}, **GPT2),
    decoder("gpt2-weight", "GPT2Config", CONV1D, weights=(0.3,), **GPT2),
    seq2seq("t5", "T5Config", LINEAR | {"task_type": "SEQ_2_SEQ_LM"}, **T5),
    seq2seq("t5-words", "T5Config", {"target_modules": ["q", "shared"]}, refused="encoder and decoder share", **T5),
    seq2seq("bart", "BartConfig", {"target_modules": ["q_proj", "v_proj", "fc1", "out_proj"], "bias": "all"}, **BART),
    seq2seq("led", "LEDConfig", {"target_modules": ["query", "q_proj", "output"]}, attention_window=8, **BART),
    encoder("bert", LABELS, {"target_modules": ["query", "value"], "task_type": "SEQ_CLS"}),
    encoder("bert-all", LABELS, LINEAR | {"task_type": "SEQ_CLS", "bias": "all"}),
    encoder("bert-words", LABELS, WORDS | {"task_type": "SEQ_CLS"}),
    encoder("bert-masked", MASKED, {"target_modules": ["query"], "modules_to_save": ["cls"]}),
    encoder("bert-masked-head", MASKED, {"target_modules": ["query", "decoder"]}),
    encoder("bert-masked-words", MASKED, WORDS),
    encoder("bert-states-labels", "AutoModel", {"target_modules": ["query"], "task_type": "SEQ_CLS"}, tuned_as=LABELS),
    encoder("bert-masked-tokens", MASKED, {"target_modules": ["query"], "task_type": "TOKEN_CLS"},
            tuned_as="AutoModelForTokenClassification"),
    encoder("bert-masked-answer", MASKED, {"target_modules": ["query"], "task_type": "QUESTION_ANS"},
            tuned_as="AutoModelForQuestionAnswering"),
    encoder("bert-without-pooler", MASKED, {"target_modules": ["query"], "task_type": "SEQ_CLS"}, tuned_as=LABELS,
            refused="pooler"),
    encoder("roberta-masked-labels", MASKED, {"target_modules": ["query"], "task_type": "SEQ_CLS"}, tuned_as=LABELS,
            config="RobertaConfig", tokenizer=roberta_tokenizer, type_vocab_size=1, pad_token_id=1,
            max_position_embeddings=130),
    encoder("electra", "AutoModelForTokenClassification", {"target_modules": ["query", "embeddings_project"],
            "task_type": "TOKEN_CLS"}, config="ElectraConfig", embedding_size=16),
    encoder("distilbert", LABELS, {"target_modules": ["q_lin", "ffn.lin1"], "task_type": "SEQ_CLS",
            "modules_to_save": ["pre_classifier", "classifier"]}, tokenizer=without_types,
            config="DistilBertConfig", dim=32, hidden_dim=48,
            n_layers=2, n_heads=2),
]  # fmt: skip

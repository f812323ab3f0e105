"""Valid inputs to begin with: `python -m fuzz.seeds` writes them into the corpus and the parts beside them."""

from __future__ import annotations

import io
import json
import math
import zlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import sentencepiece
from onnx import TensorProto, helper, numpy_helper
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from edgellm.package.manifest import (
    CacheLayout,
    DecoderFacts,
    EncoderFacts,
    FileEntry,
    GraphFile,
    Manifest,
    TokenIds,
    Weights,
)
from edgellm.sessions.header import Header
from fuzz.corpus import CORPUS, PARTS
from fuzz.gguf_bytes import gguf_bytes
from fuzz.targets import SESSION, saved_session

EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"  # the sha256 of nothing
SPACE = "\u2581"


def main() -> None:
    header = {
        "__metadata__": {"format": "pt"},
        "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
        "b.weight": {"dtype": "BF16", "shape": [4], "data_offsets": [24, 32]},
        "c": {"dtype": "F16", "shape": [], "data_offsets": [32, 34]},
    }
    _json("safetensors_header", "seed", header)
    text = json.dumps(header).encode()
    shard = len(text).to_bytes(8, "little") + text + bytes(64)
    _write(PARTS / "shard", shard)
    _write(PARTS / "empty", b"")
    _write(PARTS / "llama.json", b'{"model_type": "llama"}')
    _corpus("safetensors", "seed", shard)
    map_ = {"a": "model-1.safetensors", "b.weight": "model-2.safetensors"}
    _json("safetensors_index", "seed", {"metadata": {"total_size": 34}, "weight_map": map_})
    _gguf()
    _configs()
    _text_files()
    _sentencepiece()
    _tokenizers()
    _templates()
    _manifests()
    _graphs()
    _sessions()
    _evaluation()
    options = {
        "do_sample": True,
        "temperature": 0.7,
        "top_k": 20,
        "eos_token_id": [1, 2],
        "bad_words_ids": [[3, 4]],
        "max_new_tokens": 20,
        "stop_strings": ["x"],
        "forced_eos_token_id": 2,
        "pad_token_id": -1,
    }
    _json("generation_config", "seed", options)
    _json("generation_config", "seed-beams", {"num_beams": 4, "early_stopping": "never", "length_penalty": 2.0})
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate([("", "Transformer"), ("1_Pooling", "Pooling"), ("2", "Normalize")])
    ]
    sentence = {"modules.json": modules, "sentence_bert_config.json": {"max_seq_length": 128, "do_lower_case": False}}
    pooling = {"word_embedding_dimension": 8, "pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}
    _json("sentence_encoder", "seed", sentence | {"1_Pooling/config.json": pooling})


def _gguf() -> None:
    tokens = [*map(chr, range(33, 62)), "e", "h", "t", "th", "the", "<|end|>"]
    llama = {
        "block_count": 1,
        "context_length": 64,
        "embedding_length": 32,
        "feed_forward_length": 8,
        "attention.head_count": 2,
        "attention.head_count_kv": 1,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "rope.freq_base": 10000.0,
        "rope.dimension_count": 16,
    }
    bpe = {
        "model": "gpt2",
        "pre": "gpt-2",
        "tokens": tokens,
        "token_type": [1] * 34 + [3],
        "merges": ["t h", "th e"],
        "eos_token_id": 34,
        "chat_template": "{{ messages[0].content }}",
    }
    spm_tokens = ["<unk>", "<s>", "</s>", "<0x41>", SPACE, "a", "b", "ab", SPACE + "a"]
    spm = {
        "model": "llama",
        "tokens": spm_tokens,
        "token_type": [2, 3, 3, 6, 1, 1, 1, 1, 1],
        "scores": [-float(i) - 0.5 for i in range(9)],
        "add_bos_token": True,
    }
    shapes = {
        "token_embd.weight": [40, 32],
        "output_norm.weight": [32],
        "rope_freqs.weight": [8],
        "blk.0.attn_q.weight": [32, 32],
        "blk.0.attn_k.weight": [16, 32],
        "blk.0.ffn_up.weight": [8, 32],
    }
    for arch, vocabulary in (("llama", bpe), ("gemma3", spm), ("phi3", spm), ("qwen2", bpe), ("gpt2", bpe)):
        pairs = {"general.architecture": arch, "general.alignment": 32, "general.name": "phi3"}
        pairs |= {f"{arch}.{key}": value for key, value in llama.items()}
        pairs |= {
            f"{arch}.rope.scaling.type": "linear",
            f"{arch}.rope.scaling.factor": 2.0,
            f"{arch}.attention.sliding_window": 16,
            f"{arch}.attention.layer_norm_epsilon": 1e-5,
        }
        pairs |= {f"tokenizer.ggml.{key}": value for key, value in vocabulary.items()}
        tensors, end = [], 0
        for name, shape in shapes.items():
            if arch == "llama" or name != "rope_freqs.weight":
                tensors.append([name, shape, 0, end])
                end += 4 * math.prod(shape)
        data = {"pairs": pairs, "tensors": tensors}
        _json("gguf_metadata", f"seed-{arch}", data)
        if arch in ("llama", "phi3"):
            _corpus("gguf", f"seed-{arch}", gguf_bytes(data)[: -(1 << 16) + end])


def _configs() -> None:
    decoder = {
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "intermediate_size": 8,
        "vocab_size": 40,
        "max_position_embeddings": 64,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": True,
    }
    llama3 = {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    }
    long = {"type": "longrope", "long_factor": [2.0] * 8, "short_factor": [1.0] * 8}
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "beta_fast": 32}
    gemma = {
        "query_pre_attn_scalar": 4,
        "sliding_window": 8,
        "layer_types": ["full_attention"],
        "hidden_activation": "gelu_pytorch_tanh",
        "attn_logit_softcapping": 50.0,
    }
    bert = {
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 8,
        "vocab_size": 40,
        "max_position_embeddings": 64,
        "type_vocab_size": 2,
        "layer_norm_eps": 1e-12,
        "hidden_act": "gelu",
        "pad_token_id": 0,
        "id2label": {"0": "A"},
    }
    t5 = {
        "d_model": 32,
        "d_kv": 16,
        "d_ff": 8,
        "num_layers": 1,
        "num_decoder_layers": 1,
        "num_heads": 2,
        "vocab_size": 40,
        "relative_attention_num_buckets": 8,
        "relative_attention_max_distance": 16,
        "feed_forward_proj": "gated-gelu",
        "pad_token_id": 0,
        "decoder_start_token_id": 0,
    }
    bart = {
        "d_model": 32,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 8,
        "decoder_ffn_dim": 8,
        "vocab_size": 40,
        "max_position_embeddings": 64,
        "activation_function": "gelu",
        "scale_embedding": True,
        "pad_token_id": 1,
    }
    gpt2 = {"n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 64, "vocab_size": 40, "layer_norm_epsilon": 1e-5}
    seeds = {
        "llama": decoder | {"rope_scaling": llama3},
        "phi3": decoder | {"rope_scaling": long},
        "qwen3": decoder,
        "qwen2": decoder | {"rope_scaling": yarn},
        "mistral": decoder | {"sliding_window": 8},
        "gemma2": decoder | gemma,
        "gemma3_text": decoder | gemma,
        "gpt2": gpt2,
        "bert": bert,
        "roberta": bert,
        "electra": bert,
        "distilbert": {
            "dim": 32,
            "n_heads": 2,
            "n_layers": 1,
            "hidden_dim": 8,
            "vocab_size": 40,
            "max_position_embeddings": 64,
        },
        "t5": t5,
        "mt5": t5,
        "bart": bart,
        "marian": bart,
    }
    for name, values in seeds.items():
        _json("config", f"seed-{name}", {"model_type": name, **values})


def _text_files() -> None:
    added = {"5": {"content": "<x>", "special": True}}
    old = {
        "vocab.json": {"a": 0, "b": 1, "ab": 2, "Ġ": 3, "<e>": 4},
        "merges.txt": "#version: 0.2\na b\n",
        "added_tokens.json": {"<x>": 5},
    }
    for name in ("GPT2Tokenizer", "Qwen2Tokenizer"):
        config = {"tokenizer_class": name, "added_tokens_decoder": added, "bos_token": "<e>", "chat_template": "x"}
        _json(
            "text_files", f"seed-{name}", old | {"tokenizer_config.json": config, "config.json": {"model_type": "bart"}}
        )
    roberta = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "a": 4, "b": 5, "ab": 6, "<mask>": 7}
    _json(
        "text_files",
        "seed-roberta",
        {
            "vocab.json": roberta,
            "merges.txt": "#version: 0.2\na b\n",
            "tokenizer_config.json": {"add_prefix_space": False},
            "config.json": {"model_type": "roberta"},
        },
    )
    vocab = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nthe\n##s\ncat\n"
    _json(
        "text_files",
        "seed-bert",
        {"vocab.txt": vocab, "tokenizer_config.json": {"do_lower_case": True}, "config.json": {"model_type": "bert"}},
    )
    template = {"chat_template": [{"name": "default", "template": "{{ messages[0].content }}"}]}
    _json(
        "text_files",
        "seed-template",
        {
            "tokenizer_config.json": template,
            "chat_template.json": template,
            "special_tokens_map.json": {"bos_token": "<s>"},
            "generation_config.json": {"top_k": 3},
        },
    )


def _sentencepiece() -> None:
    lines = ["the quick brown fox jumps over the lazy dog", "pack my box with five dozen liquor jugs"] * 4
    plain = {"normalization_rule_name": "identity", "remove_extra_whitespaces": False}
    for kind, size, options in (("bpe", 60, plain), ("unigram", 45, {})):
        model = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=model,
            vocab_size=size,
            model_type=kind,
            minloglevel=2,
            hard_vocab_limit=False,
            **options,
        )
        data = model.getvalue()
        if len(data) > 20_000:  # the table of the usual normalization; the fuzzer does better without
            data = _without_table(data)
        _corpus("sentencepiece", f"seed-{kind}", data)


def _without_table(data: bytes) -> bytes:
    from sentencepiece import sentencepiece_model_pb2

    model = sentencepiece_model_pb2.ModelProto.FromString(data)
    model.normalizer_spec.precompiled_charsmap = model.normalizer_spec.precompiled_charsmap[:64]
    return bytes(model.SerializeToString())


def _tokenizers() -> None:
    bpe = Tokenizer(models.BPE(vocab={"a": 0, "b": 1, "ab": 2, "Ġ": 3}, merges=[("a", "b")], unk_token="a"))
    bpe.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Replace("x", "a")])
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.add_special_tokens([AddedToken("<s>", special=True)])
    bpe.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 4)])
    spm = Tokenizer(
        models.BPE(
            vocab={"<unk>": 0, "<0xE2>": 1, SPACE: 2, "a": 3},
            merges=[],
            unk_token="<unk>",
            byte_fallback=True,
            fuse_unk=True,
        )
    )
    spm.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])
    spm.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()])
    unigram = Tokenizer(models.Unigram([("<unk>", 0.0), ("a", -1.0), (SPACE, -2.0)], unk_id=0, byte_fallback=False))
    unigram.pre_tokenizer = pre_tokenizers.Metaspace()
    unigram.decoder = decoders.Metaspace()
    words = Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1, "##b": 2, "[CLS]": 3, "[SEP]": 4}, unk_token="[UNK]"))
    words.normalizer = normalizers.BertNormalizer()
    words.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    words.post_processor = processors.BertProcessing(("[SEP]", 4), ("[CLS]", 3))
    words.decoder = decoders.WordPiece()
    split = Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    split.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(" ", "isolated"), pre_tokenizers.Digits()])
    for name, made in {"bpe": bpe, "spm": spm, "unigram": unigram, "wordpiece": words, "wordlevel": split}.items():
        _corpus("tokenizer", f"seed-{name}", made.to_str().encode())


def _templates() -> None:
    chatml = (
        "{%- if tools %}{{- tools | tojson }}{%- endif %}{% for message in messages %}"
        "{{- '<|im_start|>' + message.role + '\\n' }}{%- if message.content is string %}{{ message.content | trim }}"
        "{%- else %}{% for part in message['content'] %}{{ part.text }}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    macros = (
        "{% macro show(x, depth=0) %}{% for k, v in x.items() %}{{ '  ' * depth ~ k }}: {{ v }}{% endfor %}"
        "{% endmacro %}"
        "{% set ns = namespace(n=0, last=messages[-1]) %}{% for m in messages[::-1] if m.role != 'system' %}"
        "{% set ns.n = ns.n + loop.index0 %}{{ show(m) }}{% generation %}{{ m.content }}{% endgeneration %}"
        "{% if loop.last %}{% break %}{% endif %}{% endfor %}{{ ns.n ** 2 }}{{ strftime_now('%Y') | length }}"
        "{{ messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | list | tojson(indent=2) }}"
        "{{ raise_exception('no') if ns.n > 99 else '%s-%d' % ('a', 3) }}{{ 'a,b'.split(',') | join('-') | upper }}"
    )
    _corpus("chat_template", "seed-chatml", chatml.encode())
    _corpus("chat_template", "seed-macros", macros.encode())
    config = {"bos_token": {"content": "<s>"}, "eos_token": "</s>", "model_max_length": 10**30}
    named = [{"name": "default", "template": chatml}, {"name": "tool_use", "template": "{{ tools }}"}]
    _json("tokenizer_config", "seed", config | {"chat_template": chatml})
    _json("tokenizer_config", "seed-named", config | {"chat_template": named})


def _sessions() -> None:
    """The arrays are zeros, so that the header's target can make them."""
    checksums = (zlib.crc32(bytes(16)), zlib.crc32(bytes(32)), zlib.crc32(bytes(32)))
    header = Header("a", "b", SESSION, tokens=2, read=1, long_table=False, checksums=checksums, metadata={"x": [1]})
    _json("session_header", "seed", asdict(header))
    _corpus("session", "seed", saved_session(json.dumps(asdict(header)).encode())["session.kv"])


def _evaluation() -> None:
    squad = [{"paragraphs": [{"context": "c", "qas": [{"id": "1", "question": "q", "answers": {"text": ["c"]}}]}]}]
    _json("evaluation_data", "seed-squad", {"data": squad})
    _corpus("evaluation_data", "seed-lines", b'{"text": "a", "label": 1}\n{"text": "b", "label": "x"}\n')
    _corpus("evaluation_data", "seed-csv", b'text,label\n"a, ""b""\nc",1\nd,2\n')
    _corpus("evaluation_data", "seed-tsv", 'text\tanswers\na\t"b"\né\tc\n'.encode())


def _manifests() -> None:
    files = {"model.onnx": FileEntry(0, EMPTY)}
    weights = Weights("int8", "blockwise-32", tied_embedding=True)
    graph = GraphFile("model.onnx", ("input_ids", "attention_mask"), ("logits",))
    common: dict[str, Any] = {
        "target": "cpu",
        "graphs": {"model": graph},
        "weights": weights,
        "vocab_size": 40,
        "context_length": 64,
        "files": files,
        "source": {"kind": "gguf", "dtypes": ["F32"]},
        "versions": {"edgellm": "0"},
    }
    decoder = Manifest(
        task="text-generation",
        model_type="llama",
        model=DecoderFacts(CacheLayout(1, 1, 4, "float32")),
        tokens=TokenIds(1, (2,), 0),
        **common,
    )
    encoder = Manifest(
        task="text-classification",
        model_type="bert",
        model=EncoderFacts(("A", "B"), "regression"),
        tokens=TokenIds(),
        **common,
    )
    _json("manifest", "seed-decoder", decoder.to_dict())
    _json("manifest", "seed-encoder", encoder.to_dict())


def _graphs() -> None:
    decoder = _decoder_graph()
    _write(PARTS / "decoder.onnx", decoder)
    for target in ("onnx", "foreign_graph"):
        _corpus(target, "seed-decoder", decoder)
        _corpus(target, "seed-encoder", _encoder_graph())
    config = {
        "model_type": "llama",
        "vocab_size": 40,
        "num_attention_heads": 1,
        "num_key_value_heads": 1,
        "hidden_size": 4,
        "max_position_embeddings": 64,
        "id2label": {"0": "A", "1": "B"},
        "architectures": ["BertForTokenClassification"],
    }
    _write(PARTS / "foreign.json", json.dumps(config).encode())
    generation = {"eos_token_id": [1, 2], "bos_token_id": 1, "pad_token_id": None}
    files = {"config.json": config, "generation_config.json": generation}
    names = {"past_key_names": "past_key_values.%d.key", "past_value_names": "past_key_values.%d.value"}
    outputs = {"present_key_names": "present.%d.key", "present_value_names": "present.%d.value"}
    decoder_config = {"filename": "model.onnx", "num_hidden_layers": 1, "head_size": 4, "num_key_value_heads": 1}
    decoder_config |= {"inputs": names, "outputs": outputs, "session_options": {"provider_options": []}}
    genai = {"type": "llama", "vocab_size": 40, "context_length": 64, "eos_token_id": [1], "decoder": decoder_config}
    _json("genai_files", "seed", {"genai_config.json": {"model": genai, "search": {"max_length": 64}}})
    _json("foreign_files", "seed", files | {"tokenizer_config.json": {"model_max_length": 10**30}})


def _decoder_graph() -> bytes:
    ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "length"])
    mask = helper.make_tensor_value_info("attention_mask", TensorProto.INT64, ["batch", "all"])
    sides = ("key", "value")
    pasts = [
        helper.make_tensor_value_info(f"past_key_values.0.{s}", TensorProto.FLOAT, ["batch", 1, "past", 4])
        for s in sides
    ]
    presents = [
        helper.make_tensor_value_info(f"present.0.{s}", TensorProto.FLOAT, ["batch", 1, "all", 4]) for s in sides
    ]
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "length", 40])
    nodes = [helper.make_node("Identity", [f"past_key_values.0.{s}"], [f"present.0.{s}"]) for s in sides]
    nodes += [helper.make_node("Gather", ["table", "input_ids"], ["logits"])]
    table = numpy_helper.from_array(np.zeros((40, 40), np.int8), "table")
    table.dims[:] = [40, 40]
    graph = helper.make_graph(nodes, "decoder", [ids, mask, *pasts], [logits, *presents], [table])
    return _small(helper.make_model(graph))


def _encoder_graph() -> bytes:
    ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "length"])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2])
    then = helper.make_graph([helper.make_node("Constant", [], ["x"], value_float=1.0)], "then", [], [logits])
    nodes = [
        helper.make_node("If", ["cond"], ["logits"], then_branch=then, else_branch=then),
        helper.make_node("MatMulNBits", ["a"], ["b"], domain="com.microsoft", bits=4, K=8, N=8),
    ]
    weight = TensorProto(name="w", dims=[2, 2], data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
    for key, value in (("location", "model.onnx_data"), ("offset", "0"), ("length", "16")):
        weight.external_data.add(key=key, value=value)
    constant = numpy_helper.from_array(np.zeros((2, 2), np.float32), "c")
    return _small(helper.make_model(helper.make_graph(nodes, "encoder", [ids], [logits], [weight, constant])))


def _small(model: onnx.ModelProto) -> bytes:
    model.graph.doc_string = ""
    return bytes(model.SerializeToString())


def _json(target: str, name: str, value: Any) -> None:
    _corpus(target, name, json.dumps(value).encode())


def _corpus(target: str, name: str, data: bytes) -> None:
    _write(CORPUS / target / name, data)


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


if __name__ == "__main__":
    main()

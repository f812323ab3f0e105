"""What users get wrong, through the command line: a typed error, one line, its exit code, and nothing left behind."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import resource
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result

import damage as d
import edgellm
from edgellm.cli import cli
from edgellm.errors import (
    ChatTemplateError,
    CheckpointError,
    CheckpointNotFoundError,
    ContextOverflowError,
    EdgellmError,
    ExportError,
    InputError,
    MissingDependencyError,
    OptionError,
    OutOfSpaceError,
    OutputExistsError,
    PackageCorruptError,
    PackageError,
    PackageNotFoundError,
    PackageVersionError,
    ProviderError,
    QualityGateError,
    TensorError,
    UnsupportedModelError,
)
from families import save_checkpoint
from gguf_files import tiny_llama

Usage = click.UsageError


@dataclass(frozen=True)
class Case:
    """A command line, the error it ends with, and words of its message, in their order.

    Words in capitals stand for paths in a directory of the case's own: copies of what `Material` has, or new ones.
    `damage` is done to the first of them, `boundary` to the system.
    """

    name: str
    command: str
    error: type[Exception]
    words: tuple[str, ...]
    damage: d.Damage = d.nothing
    boundary: d.Boundary = d.as_it_is
    stdin: bytes = b""


def case(name: str, command: str, error: type[Exception], *words: str, **more: Any) -> Case:
    return Case(name, command, error, words, **more)


def export(name: str, damage: d.Damage, error: type[Exception], *words: str, **more: Any) -> Case:
    return Case(name, more.pop("command", "export CHECKPOINT OUT"), error, words, damage, **more)


def gguf(name: str, damage: d.Damage, error: type[Exception], *words: str) -> Case:
    return Case(name, "export MODEL.gguf OUT", error, words, damage)


def package(name: str, damage: d.Damage, error: type[Exception], *words: str, **more: Any) -> Case:
    return Case(name, more.pop("command", "generate PACKAGE Hi"), error, words, damage, **more)


def gpt2_files(vocab: bytes, merges: bytes) -> d.Damage:
    """A tokenizer that is to be made of vocab.json and merges.txt."""
    config = d.written("tokenizer_config.json", b'{"tokenizer_class": "GPT2Tokenizer"}')
    return d.both(d.gone("tokenizer.json"), d.written("merges.txt", merges), d.written("vocab.json", vocab), config)


def option(text: str, *words: str, error: type[Exception] = OptionError, command: str = "generate") -> Case:
    return Case(text, f"{command} PACKAGE Hi {text}", error, words)


SAFETENSORS = [
    export("no weights", d.gone(d.WEIGHTS), CheckpointNotFoundError, "has no weights: none of model.safetensors"),
    export("empty weights", d.written(d.WEIGHTS, b""), CheckpointError, "model.safetensors is damaged", "0"),
    export("weights cut short", d.cut(d.WEIGHTS, 0.9), CheckpointError, "damaged", "ends at byte", "the file has"),
    export("weights cut in the header", d.cut(d.WEIGHTS, 0.001), CheckpointError, "its header should have"),
    export("header beyond the file", d.header_length(10**9), CheckpointError, "header should have 1000000000 bytes"),
    export("header not JSON", d.header_length(100), CheckpointError, "its header is not JSON"),
    export(
        "overlapping tensors",
        d.header(lambda h: h[d.NORM].update(data_offsets=[0, 4 * 48])),
        CheckpointError, "overlap", "copy it again",
    ),
    export(
        "offsets beyond the file",
        d.header(lambda h: h[d.NORM].update(data_offsets=[10**9, 10**9 + 4 * 48])),
        CheckpointError, "ends at byte 10000",
    ),
    export("lying dtype", d.header(lambda h: h[d.NORM].update(dtype="F16")), CheckpointError, "F16 [48] needs 96"),
    export("unknown dtype", d.header(lambda h: h[d.NORM].update(dtype="F31")), CheckpointError, "unknown type 'F31'"),
    export("lying shape", d.header(lambda h: h[d.NORM].update(shape=[49])), CheckpointError, "F32 [49] needs 196"),
    export("integer weights", d.tensors(d.integer_weights), TensorError, "has type I8", "no quantization_config"),
    export(
        "tensors missing, extra and misshapen, all named",
        d.tensors(d.missing_and_extra),
        TensorError,
        "missing (2)", "layers.1.mlp.up_proj.weight [88, 48]", "norm.weight [48]",
        "of another shape (1)", "embed_tokens.weight has shape [130, 48], expected [131, 48]",
        "not used (1)", "layers.0.self_attn.q_norm.weight", "check that config.json and the weights belong together",
    ),
    export("weights that are no numbers", d.tensors(d.not_numbers), QualityGateError, "are not numbers", "fp32"),
]  # fmt: skip

DIRECTORIES = [
    case("no source", "export NOWHERE OUT", CheckpointNotFoundError, "no checkpoint at", "hub id such as org/name"),
    case("too long a source", f"export {'x' * 300} OUT", CheckpointNotFoundError, "no checkpoint at"),
    export("an empty directory", d.emptied, CheckpointNotFoundError, "has no config.json; give the directory"),
    export(
        "a PyTorch file that is none",
        lambda path: (path / d.WEIGHTS).rename(path / "pytorch_model.bin"),
        CheckpointError, "pytorch_model.bin is damaged or not a PyTorch file", "download or copy it again",
    ),
    export(
        "a program in a PyTorch file's place",
        d.pickled_program,
        TensorError, "it asks for posix.system", "Nothing of it was executed", "save_pretrained(OUT)",
    ),
    export(
        "weights under another name",
        lambda path: (path / d.WEIGHTS).rename(path / "model.fp16.safetensors"),
        CheckpointNotFoundError, "only model.fp16.safetensors: a variant of model.safetensors", "rename it",
    ),
    case("a weight file", "export CHECKPOINT/model.safetensors OUT", CheckpointError, "give its directory"),
    case("another file", "export CHECKPOINT/config.json OUT", CheckpointError, "neither a checkpoint directory nor"),
    case("a package", "export PACKAGE OUT", CheckpointError, "is an edgellm package already", "was exported from"),
    export(
        "a shard is absent",
        d.gone("model-00002-of-00004.safetensors"),
        CheckpointNotFoundError, "lacks model-00002-of-00004.safetensors of the 4 files", "download",
        command="export SHARDED OUT",
    ),
    export(
        "an index that leaves the directory",
        d.index_map(lambda m: m.update({d.NORM: "../CHECKPOINT/model.safetensors"})),
        CheckpointError, "names '../CHECKPOINT/model.safetensors', expected .safetensors or .bin files",
        command="export SHARDED OUT",
    ),
    export(
        "a tensor is not in its shard",
        d.index_map(lambda m: m.update({"model.other.weight": m[d.EMBEDDING]})),
        CheckpointError, "promises tensors that are not there: model.other.weight",
        command="export SHARDED OUT",
    ),
    case(
        "a hub id without a hub", "export org/name OUT", CheckpointNotFoundError,
        "org/name is not in the hub cache and the hub cannot be reached", "local directory",
        boundary=d.unreachable_hub,
    ),
    case("a revision of a directory", "export CHECKPOINT OUT --revision v1", CheckpointError, "no revision 'v1'"),
    case(
        "huggingface_hub is not installed", "export org/name OUT", MissingDependencyError,
        "needs huggingface_hub; run `pip install", boundary=d.not_importable("huggingface_hub"),
    ),
    case(
        "the exporter is not installed", "export CHECKPOINT OUT", MissingDependencyError,
        "exporting needs packages that are not installed", "edgellm[export,cpu]",
        boundary=d.not_importable("edgellm_export"),
    ),
]  # fmt: skip

CONFIGS = [
    export("no config", d.gone("config.json"), CheckpointNotFoundError, "has no config.json; give the directory"),
    export("config not JSON", d.written("config.json", b"{"), CheckpointError, "config.json is not valid JSON"),
    export("config in UTF-16", d.written("config.json", b"\xff\xfe{"), CheckpointError, "is not valid JSON"),
    export("config a list", d.written("config.json", b"[]"), CheckpointError, "holds a JSON list, expected an object"),
    export("no model type", d.config(model_type=d.ABSENT), CheckpointError, "model_type is None", "'llama'"),
    export("unknown architecture", d.config(model_type="lama"), UnsupportedModelError, "'lama'", "mean 'llama'"),
    export(
        "config without needed keys",
        d.config(hidden_size=d.ABSENT, num_attention_heads=d.ABSENT),
        TensorError, "expected [4096]", "check that config.json and the weights belong together",
    ),
    export(
        "config with values of wrong types",
        d.config(num_hidden_layers="3", rms_norm_eps=[], attention_bias="no", vocab_size=-1, hidden_act=5),
        CheckpointError,
        "num_hidden_layers is '3', expected a whole number", "vocab_size is -1", "rms_norm_eps is [], expected a",
        "hidden_act is 5, expected a string", "attention_bias is 'no', expected true or false",
    ),
    export("an infinite number", d.config(rms_norm_eps=float("inf")), CheckpointError, "rms_norm_eps is inf"),
    export("head size", d.config(head_dim=24), CheckpointError, "the head size is 24", "multiples of 16"),
    export("heads", d.config(num_key_value_heads=4), CheckpointError, "num_attention_heads 6 is not a multiple of"),
    export("layers beyond reason", d.config(num_hidden_layers=10**9), CheckpointError, "is 1000000000, and the"),
    export("more than 32 bits", d.config(hidden_size=10**30), CheckpointError, "hidden_size is 1000", "to 2147483647"),
    export("a context beyond reason", d.config(max_position_embeddings=10**9), CheckpointError, "to 16777216"),
    export(
        "a stretched context beyond reason",
        d.config(rope_scaling={"type": "linear", "factor": 1e9}),
        CheckpointError, "stretches the context to 96000000000 tokens",
    ),
    export(
        "too little memory", d.nothing, ExportError, "needs more memory than there is", "larger machine",
        boundary=d.no_memory,
    ),
    export(
        "a share of rotation",
        d.config(partial_rotary_factor=0.5),
        UnsupportedModelError, "partial_rotary_factor is 0.5", "rotates whole heads",
    ),
    export("rope not an object", d.config(rope_scaling="linear"), CheckpointError, "rope_scaling is 'linear'"),
    export(
        "unknown rope", d.config(rope_scaling={"rope_type": "liner"}), UnsupportedModelError, "mean 'linear'"
    ),
    export("rope without its factor", d.config(rope_scaling={"type": "linear"}), CheckpointError, "factor is missing"),
    export(
        "an infinite rope factor",
        d.config(rope_scaling={"type": "linear", "factor": float("inf")}),
        CheckpointError, "factor is inf",
    ),
    export(
        "a rope that divides by zero",
        d.config(rope_theta=1.0, rope_scaling={"rope_type": "yarn", "factor": 2.0}),
        CheckpointError, "rope_theta is 1.0",
    ),
    export(
        "yarn with text",
        d.config(rope_scaling={"rope_type": "yarn", "factor": 2.0, "mscale": "x", "mscale_all_dim": 1.0}),
        CheckpointError, "mscale is 'x', expected a number",
    ),
    export("frequency factors", d.config(rope_freq_factors=["x"]), CheckpointError, "rope_freq_factors is"),
    export("unknown activation", d.config(hidden_act="silo"), UnsupportedModelError, "'silo'", "mean 'silu'"),
    export(
        "already quantized", d.config(quantization_config={"quant_method": "hqq"}), UnsupportedModelError,
        "quant_method is 'hqq'; edgellm reads checkpoints that were quantized by awq,", "export the original",
    ),
]  # fmt: skip

TEXT_FILES = [
    export("damaged tokenizer", d.cut("tokenizer.json", 0.5), CheckpointError, "tokenizer.json cannot be loaded"),
    export("tokenizer of no kind", d.written("tokenizer.json", b"{}"), CheckpointError, "tokenizer.json cannot be"),
    export("damaged generation_config", d.cut("generation_config.json", 0.5), CheckpointError, "is not valid JSON"),
    export(
        "generation_config a list", d.written("generation_config.json", b"[]"), CheckpointError,
        "generation_config.json holds a JSON list, expected an object",
    ),
    export("tokenizer_config", d.written("tokenizer_config.json", b"\xff"), CheckpointError, "tokenizer_config.json"),
    export("template", d.written("chat_template.jinja", b"\xff"), CheckpointError, "chat_template.jinja is not UTF-8"),
    export(
        "sentencepiece",
        d.both(d.gone("tokenizer.json"), d.written("tokenizer.model", b"\xff" * 20)),
        CheckpointError, "tokenizer.model is damaged or not a SentencePiece model",
    ),
    export("merges not text", gpt2_files(b'{"a": 0}', b"\xff"), CheckpointError, "merges.txt is not UTF-8"),
    export(
        "vocabulary not numbers", gpt2_files(b'{"a": 0, "b": "c"}', b""), CheckpointError,
        "vocab.json does not number its tokens",
    ),
]  # fmt: skip

GGUF_FILES = [
    *(
        gguf(f"GGUF cut to {share:.1%}", d.cut("", share), CheckpointError, "MODEL.gguf is damaged or cut off")
        for share in (0.0001, 0.005, 0.05, 0.5, 0.999)
    ),
    gguf("empty GGUF", d.cut("", 0), CheckpointError, "damaged or cut off", "4 bytes expected, 0 left"),
    gguf("not GGUF", lambda p: p.write_bytes(b"PK" * 99) and None, CheckpointError, "does not start with 'GGUF'"),
    gguf("GGUF version", d.replaced(b"GGUF\3", b"GGUF\1"), UnsupportedModelError, "version 1", "2 or 3"),
    gguf("unknown type", d.unknown_type, UnsupportedModelError, "token_embd.weight has the unknown", "type 77"),
    gguf("unknown tokenizer", d.gguf(tokenizer__ggml__model="rwkv"), UnsupportedModelError, "'rwkv'"),
    gguf("unknown GGUF key", d.gguf(magic=3), UnsupportedModelError, "does not know", "llama.magic"),
    gguf("unknown pre-tokenizer", d.gguf(tokenizer__ggml__pre="qwen9"), UnsupportedModelError, "mean 'qwen2'"),
    gguf("GGUF without heads", d.gguf(attention__head_count=0), CheckpointError, "llama.attention.head_count is 0"),
    gguf("unknown GGUF architecture", d.replaced(b"llama", b"lllma"), UnsupportedModelError, "'lllma'", "'llama'"),
    gguf("GGUF tensor renamed", d.replaced(b"blk.0.ffn_up", b"blk.0.ffn_xx"), TensorError, "ffn_xx"),
    gguf("GGUF part", d.gguf(split__count=2), CheckpointError, "one of 2 parts", "NAME-00001-of-00002.gguf"),
]

OUTPUTS = [
    case("taken", "export CHECKPOINT OLD", OutputExistsError, "OLD exists already; choose another path", "--force"),
    case("a file", "export CHECKPOINT FILE --force", OutputExistsError, "FILE exists and is not an edgellm package"),
    case("not a package", "export CHECKPOINT SHARDED --force", OutputExistsError, "SHARDED exists and is not"),
    case("below a file", "export CHECKPOINT FILE/out", OutOfSpaceError, "cannot write to", "FILE: "),
    case("too long a name", f"export CHECKPOINT {'x' * 300}", OutOfSpaceError, "cannot write to", "name too long"),
    case(
        "a directory that may not be written", "export CHECKPOINT OUT/deep/package", OutOfSpaceError,
        "cannot write to", "Permission denied", boundary=d.failing(errno.EACCES, "mkdir"),
    ),
    case(
        "a failed package kept where something else is", "export CHECKPOINT OUT --keep-failed", OutputExistsError,
        "OUT.failed exists and is not an edgellm package", damage=lambda p: (p.parent / "OUT.failed").touch(),
    ),
    case("fp32 for CUDA", "export CHECKPOINT OUT --target cuda --precision fp32", ExportError, "--precision fp16"),
    *(
        case(
            f"disk full in {name} number {after}{option}", f"export CHECKPOINT {out} {option}", OutOfSpaceError,
            "is full", "make room", boundary=d.failing(errno.ENOSPC, name, after=after),
        )
        for name, after in (("posix_fallocate", 0), ("mkdir", 0), ("mkdir", 1), ("fsync", 0), ("fsync", 3))
        for out, option in (("OUT/deep/package", ""), ("OLD", "--force"))
        if (name, out) != ("mkdir", "OLD") or not after
    ),
]  # fmt: skip

MANIFESTS = [
    package("no package", d.nothing, PackageNotFoundError, "no package directory at", command="generate NOWHERE Hi"),
    package("a file", d.nothing, PackageNotFoundError, "no package directory at", command="chat FILE Hi"),
    package("too long", d.nothing, PackageError, "no package can be", "name too long", command=f"inspect {'x' * 300}"),
    package("a checkpoint", d.nothing, PackageNotFoundError, "it has no edgellm.json", command="bench CHECKPOINT"),
    package("manifest not JSON", d.written("edgellm.json", b"{"), PackageCorruptError, "edgellm.json is not valid"),
    package("manifest a list", d.written("edgellm.json", b"[]"), PackageCorruptError, "JSON list, expected an object"),
    package("no version", d.manifest(format_version=d.ABSENT), PackageCorruptError, "format_version is None"),
    package("a newer version", d.manifest(format_version=2), PackageVersionError, "version 2", "upgrade edgellm"),
    package(
        "keys missing and unknown", d.manifest(cache=d.ABSENT, vocab=3), PackageCorruptError,
        "missing cache; unknown vocab; export the package again",
    ),
    package("a wrong type", d.manifest(vocab_size="131"), PackageCorruptError, "vocab_size is '131', expected int"),
    package("a wrong choice", d.manifest(task="vision"), PackageCorruptError, "task is 'vision', expected"),
    package("a negative number", d.manifest(cache__head_dim=-1), PackageCorruptError, "cache.head_dim is -1"),
    package("another head size", d.manifest(cache__head_dim=32), PackageCorruptError, "disagree", "32"),
    package("another number of heads", d.manifest(cache__num_kv_heads=1), PackageCorruptError, "disagree"),
    package("other layers", d.manifest(cache__num_layers=2), PackageCorruptError, "past_key_values.2.key"),
    package("layers beyond reason", d.manifest(cache__num_layers=10**9), PackageCorruptError, "disagree"),
    package("another type", d.manifest(cache__dtype="float16"), PackageCorruptError, "disagree", "tensor(float)"),
    package("another vocabulary", d.manifest(vocab_size=130), PackageCorruptError, "disagree", "130"),
    package("a pattern that is none", d.manifest(cache__past="{0}"), PackageCorruptError, "cache.past is '{0}'"),
    package("a rope input", d.manifest(rope__has_length_input=True), PackageCorruptError, "missing ['rope_length']"),
    package("an end token out of range", d.manifest(tokens__eos=[131]), PackageCorruptError, "[131]", "vocabulary"),
    package("no graph", d.manifest(graphs={}), PackageCorruptError, "lists none"),
    *(
        package(
            f"a path that leaves the package: {name}", d.manifest(files={name: {"size": 1, "sha256": ""}}),
            PackageCorruptError, f"file name {name!r} is not a plain path inside the package",
        )
        for name in ("../FILE", "/etc/passwd", "C:\\x", "a/../../b", "")
    ),
]  # fmt: skip

FILES = [
    package("no graph", d.gone("model.onnx"), PackageCorruptError, "lacks model.onnx, which its manifest lists"),
    package("no weights", d.gone("model.onnx.data"), PackageCorruptError, "lacks model.onnx.data"),
    package("no tokenizer", d.gone("tokenizer.json"), PackageCorruptError, "lacks tokenizer.json"),
    package("weights cut short", d.cut("model.onnx.data", 0.9), PackageCorruptError, "bytes, its manifest says"),
    package("a changed graph", d.flipped("model.onnx"), PackageCorruptError, "model.onnx was changed after the"),
    package(
        "changed weights", d.flipped("model.onnx.data"), PackageCorruptError,
        "model.onnx.data was changed after the export", "sha256", command="inspect PACKAGE --verify",
    ),
    package(
        "weights linked from outside", d.linked_outside("model.onnx.data"), PackageCorruptError,
        "model.onnx.data", "leads outside the package",
    ),
    package("a graph cut short", d.sealed(d.cut("model.onnx", 0.5)), PackageCorruptError, "model.onnx cannot be"),
    package("an empty graph", d.sealed(d.cut("model.onnx", 0)), PackageCorruptError, "model.onnx cannot be loaded"),
    package("noise for a graph", d.sealed(d.written("model.onnx", b"noise" * 9)), PackageCorruptError, "cannot be"),
    package(
        "a graph without an input", d.graph(d.without_input("attention_mask")), PackageCorruptError, "attention_mask"
    ),
    package("a graph with another input", d.graph(d.with_another_input), PackageCorruptError, "unknown ['pixels']"),
    package(
        "a graph without an output", d.graph(d.without_output("present.1.key")), PackageCorruptError, "present.1.key"
    ),
    package(
        "a graph with an unknown operator", d.graph(d.with_unknown_operator), PackageCorruptError, "cannot be loaded",
        "Teleport",
    ),
    package(
        "external data above the package", d.graph(d.external_data("location", "../FILE")), PackageCorruptError,
        "xternal", "export the package again",
    ),
    package(
        "external data anywhere", d.graph(d.external_data("location", "/etc/passwd")), PackageCorruptError, "xternal"
    ),
    package(
        "external data beyond its file", d.graph(d.external_data("offset", str(10**9))), PackageCorruptError,
        "xternal",
    ),
    package(
        "a corrupted tokenizer", d.sealed(d.cut("tokenizer.json", 0.5)), PackageCorruptError,
        "tokenizer.json cannot be read", "export the package again",
    ),
    package(
        "a corrupted generation_config", d.sealed(d.cut("generation_config.json", 0.5)), PackageCorruptError,
        "generation_config.json is not valid JSON",
    ),
    package(
        "a wrong default", d.sealed(d.edited("generation_config.json", top_p=7)), OptionError,
        "top_p is 7 in the package's generation_config.json, expected a number from 0, at most 1",
    ),
    package(
        "a corrupted report", d.sealed(d.written("report.json", b'{"quality": 1}')), PackageCorruptError,
        "report.json cannot be read", command="inspect PACKAGE",
    ),
]  # fmt: skip

TEMPLATE = "chat_template.jinja"
CHATS = [
    package("no template", d.nothing, ChatTemplateError, "no chat template", "generate", command="chat PACKAGE Hi"),
    package(
        "a broken template", d.sealed(d.written(TEMPLATE, b"{% for %}")), ChatTemplateError, "not valid Jinja",
        command="chat PACKAGE Hi",
    ),
    package(
        "a template that fails", d.sealed(d.written(TEMPLATE, b"{{ 1 / 0 }}")), ChatTemplateError, "division by zero",
        command="chat PACKAGE Hi",
    ),
    package(
        "a template that refuses", d.sealed(d.written(TEMPLATE, b"{{ raise_exception('no system') }}")),
        ChatTemplateError, "refuses these messages: no system", command="chat PACKAGE Hi --system S",
    ),
    package(
        "beams in a chat", d.sealed(d.written(TEMPLATE, b"Hi")), OptionError, "num_beams is 2", "cannot be streamed",
        command="chat PACKAGE Hi --num-beams 2",
    ),
    package(
        "a template that is not text", d.sealed(d.written(TEMPLATE, b"\xff")), PackageCorruptError, "is not UTF-8",
        command="chat PACKAGE Hi",
    ),
]  # fmt: skip

PROMPTS = [
    case("too long a prompt", f"generate PACKAGE {'x' * 97}", ContextOverflowError, "97 tokens", "context is 96"),
    case("a prompt that fills the context", f"generate PACKAGE {'x' * 96}", ContextOverflowError, "no room for a new"),
    case("max_length below the prompt", "generate PACKAGE Hello --max-length 3", OptionError, "max_length is 3", "5"),
    package(
        "an empty prompt",
        d.manifest(tokens__bos=None),
        InputError,
        "the prompt is empty",
        "no BOS token",
        command="generate PACKAGE ''",
    ),
    case("a prompt not in UTF-8", "generate PACKAGE a\udce9", InputError, "lone surrogate (U+DCE9 at position 1)"),
    case("stdin not in UTF-8", "generate PACKAGE -", InputError, "0xE9 at position 3", "iconv", stdin=b"caf\xe9"),
    case("chat not in UTF-8", "chat PACKAGE", InputError, "0xE9 at position 3", stdin=b"caf\xe9\n"),
    case("too much to bench", "bench PACKAGE --prompt-tokens 90", InputError, "context of 96"),
]

OPTIONS = [
    option("--max-new-tokens 0", "max_new_tokens is 0, expected a whole number from 1"),
    option("--max-length 0", "max_length is 0, expected a whole number from 1"),
    option("--min-new-tokens -1", "min_new_tokens is -1, expected a whole number from 0"),
    option("--min-length -1", "min_length is -1"),
    option("--max-time 0", "max_time is 0.0, expected a number above 0"),
    option("--stop-strings ''", "stop_strings is ('',), expected a non-empty string"),
    option("--num-beams 0", "num_beams is 0"),
    option("--num-return-sequences 0", "num_return_sequences is 0"),
    option("--length-penalty nan --num-beams 2", "length_penalty is nan, expected a finite number"),
    option("--num-beam-groups 0", "num_beam_groups is 0"),
    option("--diversity-penalty -1", "diversity_penalty is -1.0, expected 0 or a number from 1e-30"),
    option("--diversity-penalty 1e31 --num-beams 2 --num-beam-groups 2", "diversity_penalty is 1e+31"),
    option("--temperature -1 --do-sample", "temperature is -1.0, expected 0 or a number from 1e-30, at most 1e+30"),
    option("--temperature 1e-31 --do-sample", "temperature is 1e-31"),
    option("--top-k -1 --do-sample", "top_k is -1"),
    option("--top-p 1.01 --do-sample", "top_p is 1.01, expected a number from 0, at most 1"),
    option("--min-p 2 --do-sample", "min_p is 2.0"),
    option("--typical-p 0 --do-sample", "typical_p is 0.0, expected a number above 0, at most 1"),
    option("--epsilon-cutoff 1 --do-sample", "epsilon_cutoff is 1.0, expected a number from 0, below 1"),
    option("--eta-cutoff inf --do-sample", "eta_cutoff is inf"),
    option("--seed -1", "seed is -1"),
    option("--repetition-penalty 0", "repetition_penalty is 0.0, expected a number from 1e-30, at most 1e+30"),
    option("--no-repeat-ngram-size -1", "no_repeat_ngram_size is -1"),
    option("--top-p 2 --num-beams 0 --seed -1", "invalid options:", "num_beams is 0", "top_p is 2.0", "seed is -1"),
    option("--num-return-sequences 2", "num_return_sequences is 2, expected at most num_beams (1)", "do_sample=True"),
    option("--num-beams 3 --num-beam-groups 2 --diversity-penalty 1", "num_beam_groups is 2, expected a divisor of"),
    option("--num-beams 2 --num-beam-groups 2", "beam groups need both"),
    option("--num-beams 2 --num-beam-groups 2 --diversity-penalty 1 --do-sample", "expected do_sample=False"),
    option("--temperature 0.5", "temperature is 0.5 and has no effect without do_sample=True"),
    option("--temperature 0 --do-sample", "temperature is 0 with do_sample=True"),
    option("--length-penalty 2", "length_penalty is 2.0 and has no effect without num_beams above 1"),
    option("--threads 0", "threads is 0, expected a whole number from 1"),
    option("--threads 1000000000000", "threads is 1000000000000, expected a whole number from 1"),
    option("--device tpu", "'tpu' is not one of 'auto', 'cpu', 'cuda'; see `edgellm generate --help`", error=Usage),
    option("--top-q 1", "No such option", "--top-q", "'--top-p'", "see `edgellm generate --help`", error=Usage),
    option("--num-beams two", "'two' is not a valid integer", error=Usage),
    case("no such command", "fly PACKAGE", Usage, "No such command 'fly'; see `edgellm --help`"),
    case("no arguments", "export", Usage, "Missing argument 'SOURCE'"),
    case("unknown precision", "export CHECKPOINT OUT --precision int2", Usage, "'int2' is not one of"),
]

DEVICES = [
    case("a CPU package on CUDA", "generate PACKAGE Hi --device cuda", ProviderError, "exported for the CPU", "'cpu'"),
    case("a CUDA package without CUDA", "generate CUDA Hi", ProviderError, "has no CUDA provider", "edgellm[cuda]"),
    case(
        "no onnxruntime", "generate PACKAGE Hi", MissingDependencyError, "needs ONNX Runtime", "edgellm[cpu]",
        boundary=d.not_importable("onnxruntime"),
    ),
    case(
        "no onnxruntime for an export", "export CHECKPOINT OUT", MissingDependencyError, "needs ONNX Runtime",
        boundary=d.not_importable("onnxruntime"),
    ),
]  # fmt: skip

TABLES = {
    "safetensors": SAFETENSORS,
    "directory": DIRECTORIES,
    "config": CONFIGS,
    "text": TEXT_FILES,
    "gguf": GGUF_FILES,
    "output": OUTPUTS,
    "manifest": MANIFESTS,
    "files": FILES,
    "chat": CHATS,
    "prompt": PROMPTS,
    "options": OPTIONS,
    "device": DEVICES,
}


@pytest.fixture(scope="module")
def material(
    checkpoint: Callable[[str], Path],
    package: Callable[..., Path],
    reference: Callable[[str], Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Callable[[], Path]]:
    """What the cases copy, by the word in their command lines."""
    place = tmp_path_factory.mktemp("material")
    save_checkpoint(reference("llama"), place / "SHARDED", max_shard_size="100KB")
    tiny_llama(place / "MODEL.gguf")
    (place / "FILE").write_text("not a directory")
    return {
        "CHECKPOINT": lambda: checkpoint("llama"),
        "PACKAGE": lambda: package("llama"),
        "OLD": lambda: package("gpt2"),
        "CUDA": lambda: package("llama", "fp16", "cuda"),
        **{name: (lambda name=name: place / name) for name in ("SHARDED", "MODEL.gguf", "FILE")},
    }


@pytest.mark.parametrize(
    "case", [pytest.param(case, id=f"{table}: {case.name}") for table, cases in TABLES.items() for case in cases]
)
def test_bad_input(
    case: Case, material: dict[str, Callable[[], Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = _arranged(case, material, tmp_path)
    before = contents(tmp_path)
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patch:
        case.boundary(patch)
        result = CliRunner().invoke(cli, arguments, input=case.stdin)
    _check_message(case, result)
    assert contents(tmp_path) == before


LIBRARY: dict[str, tuple[Callable[[edgellm.Model], object], type[EdgellmError], str]] = {
    "token id out of range": (lambda m: m.generate([5, 131]), InputError, "token id 131, expected ids from 0 to 130"),
    "negative token id": (lambda m: m.generate([-1]), InputError, "token id -1"),
    "token id beyond 64 bits": (lambda m: m.generate([2**70]), InputError, "beyond 64 bits"),
    "mixed prompt": (lambda m: m.generate([1, "a"]), InputError, "holds 'a', expected whole numbers"),
    "array of numbers": (lambda m: m.generate(np.ones(3)), InputError, "shape (3,) and type float64"),
    "bytes": (lambda m: m.generate(b"Hi"), InputError, "found bytes"),
    "no prompts": (lambda m: m.generate([]), InputError, "the list of prompts is empty"),
    "two prompts to stream": (lambda m: m.stream(["a", "b"]), InputError, "stream takes one prompt"),
    "one token to score": (lambda m: m.score([5]), InputError, "at least two tokens"),
    "messages not a list": (lambda m: m.chat("Hi"), InputError, "messages must be a list"),
    "no messages": (lambda m: m.chat([]), InputError, "messages is empty"),
    "unknown option": (lambda m: m.generate("a", num_beam=2), OptionError, "unknown option 'num_beam'; did you mean"),
    "end token out of range": (lambda m: m.generate("a", eos_token_id=131), OptionError, "eos_token_id holds 131"),
    "bad words": (lambda m: m.generate("a", bad_words_ids=[[]]), OptionError, "bad_words_ids is [[]], expected"),
    "a flag that is text": (lambda m: m.generate("a", do_sample="no"), OptionError, "do_sample is 'no', expected True"),
    "prefill_chunk": (lambda m: edgellm.load(m.info.path, prefill_chunk=0), OptionError, "prefill_chunk is 0"),
    "device": (lambda m: edgellm.load(m.info.path, device="tpu"), OptionError, "device is 'tpu', expected"),
}  # fmt: skip


@pytest.mark.parametrize("name", LIBRARY)
def test_what_the_command_line_cannot_say(name: str, load: Callable[..., edgellm.Model]) -> None:
    call, error, words = LIBRARY[name]
    with pytest.raises(error) as caught:
        call(load("llama"))
    assert type(caught.value) is error
    assert words in str(caught.value)


def test_a_checkpoint_without_a_tokenizer(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    """Exports, compared on random tokens, and runs on token ids."""
    source = shutil.copytree(checkpoint("llama"), tmp_path / "checkpoint")
    (source / "tokenizer.json").unlink()
    out = tmp_path / "package"
    exported = CliRunner().invoke(cli, ["export", str(source), str(out), "--precision", "fp32"])
    assert exported.exit_code == 0, exported.stderr
    assert "of random tokens" in exported.stdout
    model = edgellm.load(out, threads=1)
    assert model.tokenizer is None
    generation = model.generate([5, 6, 7], max_new_tokens=4)
    assert (len(generation.tokens), generation.text) == (4, "")
    pieces = list(model.stream([5, 6, 7], max_new_tokens=4))
    assert tuple(token for piece in pieces for token in piece.tokens) == generation.tokens
    assert {piece.text for piece in pieces} == {""}
    assert len(model.score([5, 6, 7]).logprobs) == 2
    with pytest.raises(InputError, match="this package has no tokenizer"):
        model.generate("Hi")
    with pytest.raises(OptionError, match="stop_strings and stop need a tokenizer"):
        model.generate([5], stop_strings="x")
    refused = CliRunner().invoke(cli, ["generate", str(out), "Hi"])
    assert (refused.exit_code, refused.stderr.count("\n")) == (2, 1)
    assert refused.stderr.startswith("error: this package has no tokenizer")
    assert (
        CliRunner()
        .invoke(cli, ["bench", str(out), "--repeats", "1", "--prompt-tokens", "4", "--new-tokens", "2"])
        .exit_code
        == 0
    )


@contextlib.contextmanager
def _file_size_limit(nbytes: int) -> Iterator[None]:
    """The kernel refuses to let this process write longer files; Python ignores the signal that comes with it."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (nbytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("nbytes", [100, 3000, 30_000, 200_000])
def test_a_limit_on_file_sizes(checkpoint: Callable[[str], Path], tmp_path: Path, nbytes: int) -> None:
    with _file_size_limit(nbytes):
        result = CliRunner().invoke(cli, ["export", str(checkpoint("llama")), str(tmp_path / "a" / "package")])
    assert (result.exit_code, result.stdout) == (OutOfSpaceError.exit_code, "")
    assert "is full or limits the size of files" in result.stderr
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("share", [0.05, 0.5, 0.9, 1.01, 1.2])
def test_a_disk_that_fills_up(
    checkpoint: Callable[[str], Path], small_disk: Callable[[str], Path], share: float
) -> None:
    """`share` of the weights' size: it fills up in the weights, the other files, or the comparison's scratch file."""
    weights = 440_000  # bytes
    place = small_disk(f"size={int(share * weights)}")
    result = CliRunner().invoke(
        cli, ["export", str(checkpoint("llama")), str(place / "package"), "--precision", "fp32"]
    )
    assert (result.exit_code, result.stdout) == (OutOfSpaceError.exit_code, ""), result.stderr
    assert "is full" in result.stderr
    assert not os.listdir(place)


def _arranged(case: Case, material: dict[str, Callable[[], Path]], root: Path) -> list[str]:
    """The command line with its paths, after copying and damaging what it names."""
    places: list[Path] = []

    def place(match: re.Match[str]) -> str:
        path = root / match[0]
        if match[0] in material:
            _copy(material[match[0]](), path)
        places.append(path)
        return str(path)

    arguments = [re.sub(r"^[A-Z]{3,}(\.gguf)?", place, argument) for argument in _split(case.command)]
    if places:
        case.damage(places[0])
    return arguments


def _split(command: str) -> list[str]:
    return ["" if word == "''" else word for word in command.split(" ") if word]


def _copy(source: Path, target: Path) -> None:
    shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)


def _check_message(case: Case, result: Result) -> None:
    progress, *errors = re.split(r"^(?=error: )", result.stderr, flags=re.MULTILINE)
    assert isinstance(result.exception, SystemExit), result.exception
    ended = result.exception.__context__
    cause = ended if isinstance(ended, click.UsageError) else ended and ended.__cause__
    assert type(cause) is case.error or (isinstance(cause, click.UsageError) and case.error is Usage), cause
    assert result.exit_code == getattr(case.error, "exit_code", None)
    assert len(errors) == 1
    assert errors[0].count("\n") == 1
    assert errors[0].endswith("\n")
    assert "Traceback" not in progress
    assert result.stdout == ""
    position = 0
    for words in case.words:
        position = errors[0].find(words, position)
        assert position >= 0, f"{words!r} not in {errors[0]!r}"


def contents(directory: Path) -> dict[str, str | None]:
    """Everything below a directory: files by hash, links by where they lead, directories as None."""

    def content(path: Path) -> str | None:
        if path.is_symlink():
            return os.readlink(path)
        return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None

    return {str(path.relative_to(directory)): content(path) for path in directory.rglob("*")}

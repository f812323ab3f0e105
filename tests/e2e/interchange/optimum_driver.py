"""optimum-onnx, asked by the tests."""

from __future__ import annotations

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

from functools import cache

import onnxruntime
import optimum.onnxruntime as ort_models
import torch
from serving import serve
from transformers import AutoTokenizer

PAD = 0


@cache
def open_model(kind: str, package: str, use_io_binding: bool) -> object:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return getattr(ort_models, kind).from_pretrained(package, use_io_binding=use_io_binding, session_options=options)


def generate(
    package: str, prompts: list[list[int]], options: dict, use_io_binding: bool = False, heads: list[int] | None = None
) -> list[list[int]]:
    """New tokens of a decoder. `heads`: number and size of those that the cache has, where optimum guesses others."""
    model = open_model("ORTModelForCausalLM", package, use_io_binding)
    if heads is not None:
        model.num_key_value_heads, model.embed_size_per_head = heads
    ids = torch.tensor(prompts)
    return model.generate(ids, attention_mask=torch.ones_like(ids), **options)[:, ids.shape[1] :].tolist()


def translate(
    package: str, sources: list[list[int]], options: dict, use_io_binding: bool = False, heads: list[int] | None = None
) -> list[list[int]]:
    """The target of each source, the start excluded, as one padded batch."""
    model = open_model("ORTModelForSeq2SeqLM", package, use_io_binding)
    if heads is not None:
        model.decoder.num_attention_heads, model.decoder.embed_size_per_head = heads
    return model.generate(**padded(sources), **options)[:, 1:].tolist()


def tokenize(package: str, messages: list[dict[str, str]]) -> list[int]:
    """As transformers reads the package's tokenizer and template."""
    tokenizer = AutoTokenizer.from_pretrained(package)
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    inputs = tokenizer(text, add_special_tokens=False)
    assert sorted(inputs) == ["attention_mask", "input_ids"], sorted(inputs)  # generate refuses others
    return inputs["input_ids"]


def encode(package: str, kind: str, inputs: list[list[int]], type_ids: list[list[int]] | None) -> dict[str, list]:
    """Outputs of an encoder by name, of one padded batch."""
    feeds = padded(inputs)
    if type_ids is not None:
        feeds["token_type_ids"] = padded(type_ids)["input_ids"]
    outputs = open_model(kind, package, False)(**feeds)
    return {name: value.tolist() for name, value in outputs.items()}


def padded(rows: list[list[int]]) -> dict[str, torch.Tensor]:
    longest = max(map(len, rows))
    return {
        "input_ids": torch.tensor([[*row, *[PAD] * (longest - len(row))] for row in rows]),
        "attention_mask": torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows]),
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    serve({function.__name__: function for function in (generate, translate, encode, tokenize)})

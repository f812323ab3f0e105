"""onnxruntime-genai, asked by the tests."""

from __future__ import annotations

import json
import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import onnxruntime_genai as og
from serving import serve


def generate(package: str, prompt: list[int], max_new_tokens: int, **search: object) -> list[int]:
    """New tokens, without the one that ends them. `search`: on top of the package's genai_config.json."""
    model = og.Model(package)
    params = og.GeneratorParams(model)
    params.set_search_options(max_length=len(prompt) + max_new_tokens, **search)
    generator = og.Generator(model, params)
    generator.append_tokens(np.array(prompt, np.int32))
    while not generator.is_done():
        generator.generate_next_token()
    return generator.get_sequence(0)[len(prompt) :].tolist()


def tokenize(package: str, text: str) -> list[int]:
    return og.Tokenizer(og.Model(package)).encode(text).tolist()


def decode(package: str, tokens: list[int]) -> str:
    return og.Tokenizer(og.Model(package)).decode(np.array(tokens, np.int32))


def chat_prompt(package: str, messages: list[dict[str, str]]) -> str:
    return og.Tokenizer(og.Model(package)).apply_chat_template(json.dumps(messages), add_generation_prompt=True)


def build(checkpoint: str, out: str, precision: str, options: list[str]) -> None:
    """What `python -m onnxruntime_genai.models.builder -i checkpoint -o out -p precision -e cpu` does."""
    import torch  # only here: it takes seconds
    from onnxruntime_genai.models.builder import create_model, parse_extra_options

    torch.set_num_threads(1)
    arguments = ("", checkpoint, out, precision, "cpu", os.path.join(out, "cache"))
    create_model(*arguments, **parse_extra_options(*arguments, options))


if __name__ == "__main__":
    og.disable_telemetry_events()
    serve({function.__name__: function for function in (generate, tokenize, decode, chat_prompt, build)})

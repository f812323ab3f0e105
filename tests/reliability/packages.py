"""The packages of the reliability tests, of tiny checkpoints: python packages.py DIRECTORY makes them.

A program of its own, so that the process that is watched never imports torch: its memory would hide what grows.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

sys.path += [str(Path(__file__).parents[1] / "e2e")]

import torch
import transformers as hf

import edgellm_export
import encoder_decoder_families
import encoder_families
import families

CONTEXT = 512  # tokens of the decoders: room for prompts that make the cache grow
CHAT_TEMPLATE = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}assistant: "

SETTINGS = {**families.SIZES, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
LLAMA = families.Family("llama-long", lambda: hf.LlamaConfig(**{**SETTINGS, "max_position_embeddings": CONTEXT}))
QWEN = families.Family("qwen-long", lambda: hf.Qwen2Config(**{**SETTINGS, "max_position_embeddings": CONTEXT}))


def decoder(family: families.Family, checkpoint: Path) -> Path:
    families.save_checkpoint(families.make_model(family), checkpoint)
    (checkpoint / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    return checkpoint


def float_decoder(checkpoint: Path, out: Path) -> None:
    edgellm_export.export(decoder(LLAMA, checkpoint), out, precision="fp32", verify_quality=False)


def int8_decoder(checkpoint: Path, out: Path) -> None:
    edgellm_export.export(decoder(QWEN, checkpoint), out, kv_cache="int8", verify_quality=False)


def attention_decoder(checkpoint: Path, out: Path) -> None:
    made = decoder(LLAMA, checkpoint)
    edgellm_export.export(made, out, precision="fp32", attentions=True, verify_quality=False)


def encoder_decoder(checkpoint: Path, out: Path) -> None:
    model = encoder_decoder_families.make_model(encoder_decoder_families.BY_NAME["t5"])
    encoder_decoder_families.save_checkpoint(model, checkpoint)
    edgellm_export.export(checkpoint, out, precision="fp32", verify_quality=False)


def encoder(checkpoint: Path, out: Path) -> None:
    model = encoder_families.make_model("bert", "text-classification")
    encoder_families.save_checkpoint(model, checkpoint)
    edgellm_export.export(checkpoint, out, precision="fp32", verify_quality=False)


MAKERS: dict[str, Callable[[Path, Path], None]] = {
    "decoder": float_decoder,
    "decoder-int8": int8_decoder,
    "decoder-attentions": attention_decoder,
    "encoder-decoder": encoder_decoder,
    "encoder": encoder,
}


def make(directory: Path) -> None:
    """A package of each kind below `directory`, with its checkpoint beside it; those that are there stay."""
    for name, maker in MAKERS.items():
        if not (directory / name / "edgellm.json").is_file():
            maker(directory / "checkpoints" / name, directory / name)


if __name__ == "__main__":
    torch.set_num_threads(1)
    make(Path(sys.argv[1]))

"""Files of weights: each format, one beside the other, and what stands in them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from making import Edit, edited
from situations.decoders import gpt2, llama
from situations.encoder_decoders import marian, t5
from situations.encoders import bert, distilbert, roberta

SAFE, SAFE_INDEX = "model.safetensors", "model.safetensors.index.json"
BIN, BIN_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
Tensors = dict[str, Any]
Change = Callable[[Tensors], Tensors]


def same(tensors: Tensors) -> Tensors:
    return tensors


def read(path: Path) -> Tensors:
    from safetensors.torch import load_file

    return {name: tensor.clone() for name, tensor in load_file(path / SAFE).items()}


def write(path: Path, tensors: Any, new: bool = True) -> None:
    """A file in the format of its name."""
    import torch
    from safetensors.torch import save_file

    path.parent.mkdir(exist_ok=True)
    if path.suffix == ".safetensors":
        save_file(tensors, path, {"format": "pt"})
    else:
        torch.save(tensors, path, _use_new_zipfile_serialization=new)


def moved(name: str, change: Change = same, new: bool = True) -> Edit:
    """The weights in another file, and no longer where they were."""

    def edit(path: Path) -> None:
        tensors = read(path)
        (path / SAFE).unlink()
        write(path / name, change(tensors), new)

    return edit


def beside(name: str, change: Change) -> Edit:
    """Other weights in a file more."""
    return lambda path: write(path / name, change(read(path)))


def in_parts(index: str, *names: str, lost: bool = False) -> Edit:
    """The weights dealt out to these files. `lost`: the index has each tensor in the first of them."""

    def edit(path: Path) -> None:
        tensors, places = read(path), {}
        (path / SAFE).unlink()
        for number, name in enumerate(names):
            part = {key: tensors[key] for key in list(tensors)[number :: len(names)]}
            write(path / name, part)
            places |= dict.fromkeys(part, names[0] if lost else name)
        places |= dict.fromkeys(list(places)[:1], names[-1]) if lost else {}
        (path / index).write_text(json.dumps({"metadata": {}, "weight_map": places}))

    return edit


def index_of(index: str, name: str) -> Edit:
    """An index that has all tensors in the file `name`."""

    def edit(path: Path) -> None:
        (path / index).write_text(json.dumps({"metadata": {}, "weight_map": dict.fromkeys(read(path), name)}))

    return edit


def halved(tensors: Tensors) -> Tensors:
    return {name: tensor / 2 for name, tensor in tensors.items()}


def transposed(tensors: Tensors) -> Tensors:
    """Each matrix as a view of its transpose."""
    return {name: t.T.contiguous().T if t.ndim == 2 else t for name, t in tensors.items()}


def cut_out(tensors: Tensors) -> Tensors:
    """Each tensor as a part of one storage."""
    import torch

    whole = torch.cat([tensor.reshape(-1) for tensor in tensors.values()])
    parts = whole.split([tensor.numel() for tensor in tensors.values()])
    return {name: part.view(tensors[name].shape) for name, part in zip(tensors, parts, strict=True)}


def parameters(tensors: Tensors) -> Tensors:
    import torch

    return {name: torch.nn.Parameter(tensor) for name, tensor in tensors.items()}


def of_types(*types: str) -> Change:
    """The types in turn."""

    def change(tensors: Tensors) -> Tensors:
        import torch

        return {name: t.to(getattr(torch, types[i % len(types)])) for i, (name, t) in enumerate(tensors.items())}

    return change


def ends(names: Mapping[str, str]) -> Change:
    """With names that end in another way."""

    def change(tensors: Tensors) -> Tensors:
        made = {}
        for name, tensor in tensors.items():
            end = next((end for end in names if name.endswith(end)), "")
            made[name.removesuffix(end) + names.get(end, "")] = tensor
        return made

    return change


OLD_NORMS = ends({"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"})


def prefixed(prefix: str) -> Change:
    return lambda tensors: {prefix + name: tensor for name, tensor in tensors.items()}


def without_prefix(prefix: str) -> Change:
    return lambda tensors: {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}


def with_buffers(tensors: Tensors) -> Tensors:
    """As BERT's checkpoints were once saved."""
    import torch

    return tensors | {"bert.embeddings.position_ids": torch.arange(128).expand((1, -1))}


def as_published(tensors: Tensors) -> Tensors:
    """All that a Marian model had in 2020: its tied embedding under each of its names."""
    shared = tensors["model.shared.weight"]
    names = ("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight", "lm_head.weight")
    return tensors | dict.fromkeys(names, shared)


def named(name: str) -> Edit:
    return edited("config.json", transformers_weights=name)


PARTS = ("pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin")
SITUATIONS = [
    llama("bin", moved(BIN)),
    llama("bin-old-format", moved(BIN, new=False)),
    llama("bin-in-parts", in_parts(BIN_INDEX, *PARTS)),
    llama("bin-transposed", moved(BIN, transposed)),
    llama("bin-transposed-old-format", moved(BIN, transposed, new=False)),
    llama("bin-of-one-storage", moved(BIN, cut_out)),
    llama("bin-of-one-storage-old-format", moved(BIN, cut_out, new=False)),
    llama("bin-of-parameters", moved(BIN, parameters)),
    llama("bin-of-types", moved(BIN, of_types("float32", "float16", "bfloat16", "float64"))),
    llama("types", moved(SAFE, of_types("float32", "float16", "bfloat16", "float64"))),
    llama("types-bin-tied", moved(BIN, of_types("bfloat16")), tie_word_embeddings=True),
    gpt2("bin", moved(BIN)),
    gpt2("bin-without-prefix", moved(BIN, without_prefix("transformer."))),
    t5("bin", moved(BIN, new=False)),
    marian("bin-as-published", moved(BIN, as_published, new=False)),
    marian("bin", moved(BIN)),
    bert("mlm", "bin", moved(BIN)),
    bert("mlm", "bin-old-norms", moved(BIN, OLD_NORMS)),
    bert("labels", "old-norms", moved(SAFE, OLD_NORMS)),
    bert("mlm", "bin-with-buffers", moved(BIN, with_buffers)),
    bert("states", "with-prefix", moved(SAFE, prefixed("bert."))),
    distilbert("mlm", "old-norms", moved(BIN, OLD_NORMS)),
    roberta("mlm", "old-norms", moved(BIN, OLD_NORMS), type_vocab_size=2),
    llama("without-prefix", moved(SAFE, without_prefix("model.")), tie_word_embeddings=True),
    llama("safetensors-beside-bin", beside(BIN, halved)),
    llama("safetensors-beside-an-old-index", beside("a.safetensors", halved), index_of(SAFE_INDEX, "a.safetensors")),
    llama("bin-beside-an-old-index", beside("a.bin", halved), index_of(BIN_INDEX, "a.bin"), moved(BIN)),
    llama("index-beside-bin", beside(BIN, halved), in_parts(SAFE_INDEX, "a.safetensors", "b.safetensors")),
    llama("parts-in-a-folder", in_parts(SAFE_INDEX, "parts/a.safetensors", "parts/b.safetensors")),
    llama("parts-elsewhere", in_parts(SAFE_INDEX, "a.safetensors", "b.safetensors", lost=True)),
    llama("named-weights", beside("other.safetensors", halved), named("other.safetensors")),
    llama("beside-a-variant", beside("model.fp16.safetensors", halved)),
    llama("beside-mistrals-own", beside("consolidated.safetensors", halved)),
    llama("only-a-variant", moved("model.fp16.safetensors"), refused="a variant of model.safetensors"),
    llama("only-consolidated", moved("consolidated.safetensors"), refused="convert_mistral_weights_to_hf"),
    llama("only-pt", moved("model.pt"), refused="rename the file to pytorch_model.bin"),
    llama("in-a-dictionary", moved(BIN, lambda t: {"state_dict": t}), refused="not a file of weights alone"),
    llama("wrapped", moved(SAFE, prefixed("module.")), refused="DataParallel"),
    llama("compiled", moved(BIN, prefixed("_orig_mod.")), refused=r"torch\.compile"),
    llama("8-bit", moved(SAFE, of_types("float8_e4m3fn")), refused="has type F8_E4M3"),
]

"""PyTorch's and TensorFlow's files: small ones as torch writes them, and the layout that Keras writes."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from typing import Any

import torch

from fuzz.seeds.writing import write_input, write_json, write_part
from fuzz.weight_files import behind_one_another


def write_pytorch() -> None:
    for name, tensors in states().items():
        made, old = io.BytesIO(), io.BytesIO()
        torch.save(tensors, made)
        with zipfile.ZipFile(made) as archive:
            write_input("pytorch_pickle", f"seed-{name}", archive.read("archive/data.pkl"))
        write_input("pytorch_zip", f"seed-{name}", made.getvalue())
        torch.save(tensors, old, _use_new_zipfile_serialization=False)
        write_input("pytorch_old", f"seed-{name}", behind(old.getvalue()))
    write_part("torch", torch_file({"a": torch.ones(2, 3), "b.weight": torch.ones(4)}))
    map_ = {"a": "model-1.bin", "b.weight": "model-2.bin"}
    write_json("pytorch_index", "seed", {"metadata": {"total_size": 40}, "weight_map": map_})
    write_input("pytorch_pickle", "seed-program", pickle.dumps({"w": print}, 2))


def states() -> dict[str, Any]:
    weight = torch.arange(16.0).reshape(4, 4)
    plain = OrderedDict(a=weight, tied=weight, part=weight[1:, ::2], turned=weight.T)
    plain._metadata = {"": {"version": 1}}  # type: ignore[attr-defined]
    parameter = torch.nn.Parameter(torch.ones(2).bfloat16())
    parameter.of = "x"  # type: ignore[attr-defined]
    others = {"p": parameter, "h": torch.ones(3).half(), "i": torch.arange(3), "e": torch.zeros(0, 2)}
    return {"plain": plain, "others": others, "eight": {"q": torch.ones(4).to(torch.int8), "s": torch.tensor(1.0)}}


def torch_file(tensors: Any) -> bytes:
    made = io.BytesIO()
    torch.save(tensors, made)
    return made.getvalue()


def behind(content: bytes) -> bytes:
    """What comes behind the three pickles that begin every file."""
    file = io.BytesIO(content)
    for _ in range(3):
        pickle.load(file)
    assert behind_one_another(b"")[:20] == content[:20]
    return content[file.tell() :]


def write_tensorflow() -> None:
    arrays = {
        "bert": {
            "m/bert/encoder/layer_._0/dense/kernel:0": [[3, 2], "f4"],
            "m/bert/encoder/layer_._0/dense/bias:0": [[2], "f4"],
            "m/bert/LayerNorm/gamma:0": [[2], "f2"],
        },
        "mlm___cls": {"m/mlm___cls/predictions/bias:0": [[1, 5], "f8"], "m/mlm___cls/ids:0": [[3], "i4"]},
    }
    listed = {layer: list(entries) for layer, entries in arrays.items()}
    write_json("tensorflow_layout", "seed", {"layers": list(arrays), "arrays": arrays, "listed": listed})


def write_choices() -> None:
    config = {"model_type": "marian", "architectures": ["MarianMTModel"]}
    names = {
        "found": ["config.json", "model.safetensors", "pytorch_model.bin"],
        "variants": ["model.fp16.safetensors", "model.safetensors.index.fp16.json"],
        "others": ["flax_model.msgpack", "tf_model.h5.index.json", "rust_model.ot", "a.pt", "b.pt", "onnx/model.onnx"],
        "makers": ["consolidated.00.pth", "params.json"],
    }
    for name, files in names.items():
        write_json("weight_choice", f"seed-{name}", {"names": files, "config": config})
    named = config | {"transformers_weights": "a/b.safetensors"}
    write_json("weight_choice", "seed-named", {"names": ["a/b.safetensors"], "config": named})

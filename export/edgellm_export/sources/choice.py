"""Which of a checkpoint's files hold its weights, in the order in which transformers looks for them; where none does,
what there is instead and what to do with it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

from edgellm.errors import CheckpointError, CheckpointNotFoundError
from edgellm.package.file_names import is_inside

Format = Literal["safetensors", "pytorch", "tensorflow"]

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
PYTORCH, PYTORCH_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
TENSORFLOW = "tf_model.h5"
NAMED = "transformers_weights"  # a key of config.json
ENCODER_DECODERS = {"bart", "blenderbot", "m2m_100", "marian", "mbart", "mt5", "pegasus", "t5", "umt5"}
SHOWN = 3


@dataclass(frozen=True)
class WeightFile:
    """The file to begin with. An index names the files that hold the tensors."""

    name: str
    format: Format

    @property
    def is_index(self) -> bool:
        return self.name.endswith(".index.json")


ORDER = (
    WeightFile(WEIGHTS, "safetensors"),
    WeightFile(INDEX, "safetensors"),
    WeightFile(PYTORCH, "pytorch"),
    WeightFile(PYTORCH_INDEX, "pytorch"),
    WeightFile(TENSORFLOW, "tensorflow"),
)


def find_weights(where: str, names: Collection[str], config: Mapping[str, Any]) -> WeightFile:
    """`where`: the directory or repository, for messages; `names`: of all its files. Raises CheckpointError."""
    if config.get(NAMED) is not None:
        return _named(where, names, config[NAMED])
    for file in ORDER:
        if file.name in names:
            return file
    raise no_weights(where, names, config)


def _named(where: str, names: Collection[str], name: Any) -> WeightFile:
    """The file that config.json names."""
    if not is_inside(name) or not name.endswith((".safetensors", ".safetensors.index.json")):
        raise CheckpointError(
            f"{where}: config.json names {name!r} as {NAMED}, expected a .safetensors file or its .index.json"
        )
    if name not in names:
        raise CheckpointNotFoundError(f"{where} has no {name}, which its config.json names as {NAMED}; download it")
    return WeightFile(name, "safetensors")


@dataclass(frozen=True)
class Other:
    """Files that transformers does not read of itself. `remedy`: what to do, after "X has only FILES, "."""

    patterns: tuple[str, ...]
    remedy: Callable[[str, Mapping[str, Any]], str]


def resaving(config: Mapping[str, Any], argument: str = "") -> str:
    """How to save the checkpoint anew with transformers, in its own class. `argument`: one more of from_pretrained."""
    names = config.get("architectures")
    name = names[0] if isinstance(names, list) and names else None
    if isinstance(name, str) and name.isidentifier():
        of = name
    elif config.get("is_encoder_decoder") is True or str(config.get("model_type")) in ENCODER_DECODERS:
        of = "AutoModelForSeq2SeqLM"
    else:
        return "load it with the class of transformers that it was trained as, and save it with save_pretrained(OUT)"
    return f"save it anew with transformers: {of}.from_pretrained(DIRECTORY{argument}).save_pretrained(OUT)"


def _variants(plain: str) -> Other:
    """Files such as model.fp16.safetensors and model.safetensors.index.fp16.json."""
    stem, _, suffix = plain.rpartition(".")
    remedy = f"a variant of {plain}, which is read only when it has that name; rename it"
    return Other((f"{stem}.*.{suffix}",), lambda *_: remedy)


OTHERS = (
    Other(("*.gguf",), lambda name, _: f"GGUF files; download one, such as {name}, and give its path"),
    *(_variants(name) for name in (INDEX, PYTORCH_INDEX, WEIGHTS, PYTORCH)),
    Other(
        ("model-*-of-*.safetensors", "pytorch_model-*-of-*.bin"),
        lambda name, _: (
            f"a part of the weights without {INDEX if name.endswith('.safetensors') else PYTORCH_INDEX}, which says "
            "what lies where; download that too"
        ),
    ),
    Other(
        ("consolidated*.safetensors", "consolidated.*.pth"),
        lambda name, _: (
            "weights under their maker's own names; download the repository's model*.safetensors with its config.json, "
            "or convert them once with transformers' convert_mistral_weights_to_hf.py (Llama: "
            "convert_llama_weights_to_hf.py)"
        ),
    ),
    Other(
        ("tf_model.h5.index.json", "tf_model-*-of-*.h5"),
        lambda _, config: (
            "TensorFlow weights in parts, which neither edgellm nor transformers reads into PyTorch; put them together "
            "with transformers 4: TF" + resaving(config).rpartition(": ")[2]
        ),
    ),
    Other(
        ("flax_model.msgpack", "flax_model*"),
        lambda _, config: f"Flax weights; {resaving(config, ', from_flax=True')} (transformers 4.57 with flax)",
    ),
    Other(
        ("model.ckpt.index", "*.ckpt.index", "*.ckpt.meta"),
        lambda _, config: f"a TensorFlow 1 checkpoint; {resaving(config, ', from_tf=True')} (transformers 4.57)",
    ),
    Other(
        ("*.onnx", "onnx/*.onnx"),
        lambda *_: "graphs, which edgellm.load runs as they are, and `edgellm export --via optimum` makes packages of",
    ),
    Other(
        ("*.bin", "*.pt", "*.pth", "*.ckpt"),
        lambda _, config: (
            f"which transformers does not read under that name. If these are the weights alone, rename the file to "
            f"{PYTORCH}; else {resaving(config)}"
        ),
    ),
    Other(
        ("*.safetensors",),
        lambda *_: f"which transformers does not read under that name; rename it to {WEIGHTS}, or download {INDEX} too",
    ),
    Other(("*.ot", "*.npz", "*.msgpack", "*.h5"), lambda _, config: f"another tool's weights; {resaving(config)}"),
)


def no_weights(where: str, names: Collection[str], config: Mapping[str, Any]) -> CheckpointError:
    """The error that says what there is, and what would work."""
    for other in OTHERS:
        found = sorted(name for name in names if any(fnmatchcase(name, pattern) for pattern in other.patterns))
        if found:
            more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
            return CheckpointNotFoundError(
                f"{where} has none of {', '.join(file.name for file in ORDER)}, only {', '.join(found[:SHOWN])}{more}: "
                f"{other.remedy(found[0], config)}"
            )
    return CheckpointNotFoundError(
        f"{where} has no weights: none of {', '.join(file.name for file in ORDER)}; download them"
    )

"""A table of model types, each one small file. Adding a family: write its file, add its row, add its tiny config to
the tests (docs/design.md)."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, Literal

from edgellm.errors import CheckpointError, UnsupportedModelError
from edgellm_export.architectures.defaults import completed
from edgellm_export.architectures.elsewhere import advice
from edgellm_export.architectures.names import canonical
from edgellm_export.checkpoint import Checkpoint
from edgellm_export.checkpoint.config import ConfigReader

Kind = Literal["decoder", "encoder", "encoder-decoder", "speech"]

# model_type in config.json -> module in this folder
DECODERS = {
    "gemma2": "gemma2",
    "gemma3_text": "gemma3",
    "gpt2": "gpt2",
    "gpt_neox": "gpt_neox",
    "llama": "llama",
    "ministral": "mistral",
    "mistral": "mistral",
    "phi3": "phi3",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "starcoder2": "starcoder2",
}
ENCODER_DECODERS = {
    "bart": "bart",
    "blenderbot": "blenderbot",
    "blenderbot-small": "blenderbot_small",
    "m2m_100": "m2m_100",
    "marian": "marian",
    "mbart": "mbart",
    "mt5": "mt5",
    "pegasus": "pegasus",
    "t5": "t5",
    "umt5": "umt5",
}
ENCODERS = {
    "bert": "bert",
    "camembert": "roberta",
    "distilbert": "distilbert",
    "electra": "electra",
    "ernie": "ernie",
    "roberta": "roberta",
    "xlm-roberta": "roberta",
}
SPEECH = {
    "whisper": "whisper",
}
FAMILIES: Mapping[Kind, Mapping[str, str]] = {
    "decoder": DECODERS,
    "encoder": ENCODERS,
    "encoder-decoder": ENCODER_DECODERS,
    "speech": SPEECH,
}


def kind_of(config: Mapping[str, Any]) -> Kind:
    """Which kind of model config.json describes. Raises UnsupportedModelError or CheckpointError."""
    model_type = config.get("model_type")
    if not isinstance(model_type, str):
        raise CheckpointError(
            f"config.json: model_type is {model_type!r}, expected a name such as 'llama'; "
            "is this a transformers checkpoint?"
        )
    for kind, families in FAMILIES.items():
        if model_type in families:
            return kind
    known = [name for families in FAMILIES.values() for name in families]
    raise UnsupportedModelError(f"edgellm does not build the architecture {model_type!r}; {advice(config, known)}")


def open_family(checkpoint: Checkpoint) -> tuple[Any, Checkpoint]:
    """The family that a checkpoint is of, of its kind in `contract`, and the checkpoint under its names. Raises
    UnsupportedModelError or CheckpointError."""
    found = read_family(checkpoint.config, len(checkpoint.tensors))
    named = canonical(checkpoint, found.names, tied=found.tied, defaults=found.defaults)
    return found.fitted(named.tensors), named


def read_family(config: Mapping[str, Any], tensors: int) -> Any:
    """The family that config.json describes, for a checkpoint with so many tensors. Raises UnsupportedModelError or
    CheckpointError."""
    kind = kind_of(config)
    reader = ConfigReader(completed(config), tensors=tensors)
    for key in ("per_layer_config", "kv_sharing_modes"):  # which transformers 5 reads of every family
        reader.must_be(key, None)
    found = family(FAMILIES[kind][config["model_type"]]).parse(reader)
    reader.finish()
    return found


def family(module: str) -> Any:
    """A family's module, by its name in the tables."""
    return importlib.import_module(f"edgellm_export.architectures.{module}")

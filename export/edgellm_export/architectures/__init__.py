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
    "apertus": "apertus",
    "arcee": "arcee",
    "bamba": "bamba",
    "bitnet": "bitnet",
    "bloom": "bloom",
    "codegen": "codegen",
    "cohere": "cohere",
    "cohere2": "cohere2",
    "deepseek_v2": "deepseek_v2",
    "deepseek_v3": "deepseek_v3",
    "ernie4_5": "ernie4_5",
    "exaone4": "exaone4",
    "falcon": "falcon",
    "gemma": "gemma",
    "gemma2": "gemma2",
    "gemma3_text": "gemma3",
    "gemma3n_text": "gemma3n",
    "glm": "glm",
    "glm4": "glm4",
    "gpt2": "gpt2",
    "gpt_bigcode": "gpt_bigcode",
    "gpt_neo": "gpt_neo",
    "gpt_neox": "gpt_neox",
    "gpt_oss": "gpt_oss",
    "gptj": "gptj",
    "granite": "granite",
    "granitemoe": "granitemoe",
    "granitemoehybrid": "granitemoehybrid",
    "helium": "helium",
    "hunyuan_v1_dense": "hunyuan",
    "lfm2": "lfm2",
    "llama": "llama",
    "mamba2": "mamba2",
    "ministral": "mistral",
    "mistral": "mistral",
    "mixtral": "mixtral",
    "mpt": "mpt",
    "nemotron": "nemotron",
    "olmo": "olmo",
    "olmo2": "olmo2",
    "olmo3": "olmo3",
    "olmoe": "olmoe",
    "opt": "opt",
    "phi": "phi",
    "phi3": "phi3",
    "phimoe": "phimoe",
    "qwen2": "qwen2",
    "qwen2_5_vl_text": "qwen2_vl",
    "qwen2_moe": "qwen2_moe",
    "qwen2_vl_text": "qwen2_vl",
    "qwen3": "qwen3",
    "qwen3_moe": "qwen3_moe",
    "qwen3_vl_text": "qwen3_vl",
    "seed_oss": "seed_oss",
    "smollm3": "smollm3",
    "stablelm": "stablelm",
    "starcoder2": "starcoder2",
}
ENCODER_DECODERS = {
    "bart": "bart",
    "blenderbot": "blenderbot",
    "blenderbot-small": "blenderbot_small",
    "led": "led",
    "longt5": "longt5",
    "m2m_100": "m2m_100",
    "marian": "marian",
    "mbart": "mbart",
    "mt5": "mt5",
    "pegasus": "pegasus",
    "prophetnet": "prophetnet",
    "t5": "t5",
    "t5gemma": "t5gemma",
    "umt5": "umt5",
}
ENCODERS = {
    "albert": "albert",
    "bert": "bert",
    "camembert": "roberta",
    "data2vec-text": "roberta",
    "deberta": "deberta",
    "deberta-v2": "deberta_v2",
    "distilbert": "distilbert",
    "electra": "electra",
    "ernie": "ernie",
    "esm": "esm",
    "eurobert": "eurobert",
    "gte": "gte",
    "megatron-bert": "megatron_bert",
    "modernbert": "modernbert",
    "mpnet": "mpnet",
    "new": "gte",
    "nomic_bert": "nomic_bert",
    "rembert": "rembert",
    "roberta": "roberta",
    "roberta-prelayernorm": "roberta_prelayernorm",
    "roformer": "roformer",
    "xlm-roberta": "roberta",
    "xlm-roberta-xl": "xlm_roberta_xl",
}
SPEECH = {
    "moonshine": "moonshine",
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

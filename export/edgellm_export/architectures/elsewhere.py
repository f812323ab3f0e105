"""What to do with a model that edgellm does not build itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from edgellm.errors import nearest
from edgellm_export.architectures.whole import WHOLES

# The model types that optimum-onnx 0.1 exports with the tasks of edgellm.
OPTIMUM = frozenset({
    "albert", "arcee", "bart", "bert", "big_bird", "bigbird_pegasus", "blenderbot", "blenderbot-small", "bloom",
    "camembert", "codegen", "cohere", "convbert", "data2vec-text", "deberta", "deberta-v2", "deepseek_v3",
    "distilbert", "electra", "esm", "falcon", "flaubert", "gemma", "gemma2", "gemma3_text", "glm", "gpt2",
    "gpt_bigcode", "gpt_neo", "gpt_neox", "gpt_oss", "gptj", "granite", "helium", "ibert", "internlm2", "llama",
    "longt5", "m2m_100", "marian", "mbart", "megatron-bert", "mistral", "mobilebert", "modernbert",
    "mpnet", "mpt", "mt5", "nemotron", "nystromformer", "olmo", "olmo2", "opt", "pegasus", "phi", "phi3", "qwen2",
    "qwen3", "qwen3_moe", "rembert", "roberta", "roformer", "smollm3", "splinter", "squeezebert", "stablelm", "t5",
    "xlm", "xlm-roberta",
})  # fmt: skip

NOWHERE = {
    "longformer": "a graph of its attention in windows holds for one length of text",
}


def advice(config: Mapping[str, Any], known: Iterable[str]) -> str:
    """What would work for a checkpoint whose model_type is not `known`."""
    model_type = str(config["model_type"])
    if model_type in NOWHERE:
        return f"nor does --via optimum: {NOWHERE[model_type]}"
    if model_type in OPTIMUM:
        return "optimum-onnx has it: run `edgellm export SOURCE OUT --via optimum`"
    parts = [name for name, part in config.items() if name.endswith("_config") and isinstance(part, Mapping)]
    if "text_config" in parts:
        return (
            f"it has several parts ({', '.join(sorted(parts))}), and edgellm builds models of text alone, also those "
            f"inside of {', '.join(WHOLES)}"
        )
    return f"{nearest(model_type, known)}; nor has optimum-onnx 0.1, which --via optimum asks, any such model"

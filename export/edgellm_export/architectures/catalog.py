"""Which families there are, in words: their best-known checkpoints, and what holds of each kind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from edgellm_export.architectures import FAMILIES, Kind
from edgellm_export.architectures.elsewhere import NOWHERE, OPTIMUM
from edgellm_export.architectures.whole import WHOLES

# The checkpoints that a model type is known by, as the hub names them.
CHECKPOINTS: Mapping[str, str] = {
    "albert": "albert/albert-base-v2",
    "apertus": "swiss-ai/Apertus-8B-Instruct-2509",
    "arcee": "arcee-ai/AFM-4.5B",
    "bamba": "ibm-ai-platform/Bamba-9B-v2, ibm-ai-platform/Bamba-9B-v1",
    "bart": "facebook/bart-large-cnn, facebook/bart-large-mnli",
    "bert": "google-bert/bert-base-uncased, sentence-transformers/all-MiniLM-L6-v2, BAAI/bge-small-en-v1.5",
    "bitnet": "microsoft/bitnet-b1.58-2B-4T",
    "blenderbot": "facebook/blenderbot-400M-distill",
    "blenderbot-small": "facebook/blenderbot_small-90M",
    "bloom": "bigscience/bloom-560m, bigscience/bloomz-560m",
    "camembert": "almanach/camembert-base",
    "codegen": "Salesforce/codegen-350M-mono",
    "cohere": "CohereLabs/c4ai-command-r-v01, CohereLabs/aya-23-8B",
    "cohere2": "CohereLabs/c4ai-command-r7b-12-2024",
    "data2vec-text": "facebook/data2vec-text-base",
    "deberta": "microsoft/deberta-base",
    "deberta-v2": "microsoft/deberta-v3-base, MoritzLaurer/deberta-v3-base-zeroshot-v2.0",
    "deepseek_v2": "deepseek-ai/DeepSeek-V2-Lite-Chat, deepseek-ai/DeepSeek-Coder-V2-Lite-Instruct",
    "deepseek_v3": "moonshotai/Moonlight-16B-A3B-Instruct, deepseek-ai/DeepSeek-V3",
    "distilbert": "distilbert/distilbert-base-uncased-finetuned-sst-2-english",
    "electra": "google/electra-small-discriminator",
    "ernie": "nghuyong/ernie-2.0-base-en",
    "ernie4_5": "baidu/ERNIE-4.5-0.3B-PT",
    "esm": "facebook/esm2_t6_8M_UR50D, facebook/esm2_t33_650M_UR50D",
    "eurobert": "EuroBERT/EuroBERT-210m",
    "exaone4": "LGAI-EXAONE/EXAONE-4.0-1.2B",
    "falcon": "tiiuae/falcon-7b, tiiuae/falcon-rw-1b",
    "gemma": "google/gemma-2b-it",
    "gemma2": "google/gemma-2-2b-it",
    "gemma3": "google/gemma-3-4b-it",
    "gemma3_text": "google/gemma-3-270m-it, google/gemma-3-1b-it, google/embeddinggemma-300m",
    "gemma3n": "google/gemma-3n-E2B-it, google/gemma-3n-E4B-it",
    "gemma3n_text": "the text model of google/gemma-3n-E2B-it, saved by itself",
    "glm": "zai-org/glm-4-9b-chat-hf, zai-org/glm-edge-1.5b-chat",
    "glm4": "zai-org/GLM-4-9B-0414",
    "gpt2": "openai-community/gpt2, distilbert/distilgpt2",
    "gpt_bigcode": "bigcode/gpt_bigcode-santacoder, bigcode/starcoderbase-1b",
    "gpt_neo": "EleutherAI/gpt-neo-125m, roneneldan/TinyStories-33M",
    "gpt_neox": "EleutherAI/pythia-160m",
    "gpt_oss": "openai/gpt-oss-20b",
    "gptj": "EleutherAI/gpt-j-6b",
    "granite": "ibm-granite/granite-3.3-2b-instruct",
    "granitemoe": "ibm-granite/granite-3.1-1b-a400m-instruct",
    "granitemoehybrid": "ibm-granite/granite-4.0-h-micro, ibm-granite/granite-4.0-h-tiny, "
    "ibm-granite/granite-4.0-350m, ibm-granite/granite-4.0-h-350m",
    "gte": "Alibaba-NLP/gte-multilingual-base, as transformers 5 saves it",
    "helium": "kyutai/helium-1-2b",
    "hunyuan_v1_dense": "tencent/Hunyuan-0.5B-Instruct",
    "idefics3": "HuggingFaceM4/Idefics3-8B-Llama3, ibm-granite/granite-docling-258M",
    "internvl": "OpenGVLab/InternVL3-1B-hf",
    "lfm2": "LiquidAI/LFM2-350M, LiquidAI/LFM2-1.2B",
    "led": "allenai/led-base-16384, pszemraj/led-base-book-summary",
    "llama": "meta-llama/Llama-3.2-1B-Instruct, HuggingFaceTB/SmolLM2-135M-Instruct",
    "llava": "llava-hf/llava-1.5-7b-hf",
    "llava_next": "llava-hf/llava-v1.6-mistral-7b-hf",
    "longt5": "google/long-t5-tglobal-base, google/long-t5-local-base",
    "m2m_100": "facebook/nllb-200-distilled-600M, facebook/m2m100_418M",
    "mamba2": "mistralai/Mamba-Codestral-7B-v0.1, AntonV/mamba2-130m-hf",
    "marian": "Helsinki-NLP/opus-mt-en-de",
    "mbart": "facebook/mbart-large-50-many-to-many-mmt",
    "megatron-bert": "nvidia/megatron-bert-uncased-345m",
    "ministral": "mistralai/Ministral-8B-Instruct-2410",
    "mistral": "mistralai/Mistral-7B-Instruct-v0.3",
    "mistral3": "mistralai/Mistral-Small-3.1-24B-Instruct-2503",
    "mixtral": "mistralai/Mixtral-8x7B-Instruct-v0.1",
    "modernbert": "answerdotai/ModernBERT-base, Alibaba-NLP/gte-modernbert-base",
    "mpnet": "sentence-transformers/all-mpnet-base-v2",
    "mpt": "mosaicml/mpt-7b",
    "mt5": "google/mt5-small",
    "nemotron": "nvidia/Nemotron-Mini-4B-Instruct",
    "new": "Alibaba-NLP/gte-multilingual-base, Alibaba-NLP/gte-base-en-v1.5",
    "nomic_bert": "nomic-ai/nomic-embed-text-v1.5",
    "olmo": "allenai/OLMo-1B-hf",
    "olmo2": "allenai/OLMo-2-0425-1B-Instruct",
    "olmo3": "allenai/Olmo-3-7B-Instruct",
    "olmoe": "allenai/OLMoE-1B-7B-0125-Instruct",
    "opt": "facebook/opt-125m",
    "pegasus": "google/pegasus-xsum",
    "phi": "microsoft/phi-1_5, microsoft/phi-2",
    "phi3": "microsoft/Phi-3.5-mini-instruct, microsoft/Phi-4-mini-instruct",
    "phimoe": "microsoft/Phi-3.5-MoE-instruct, microsoft/Phi-mini-MoE-instruct",
    "prophetnet": "microsoft/prophetnet-large-uncased, microsoft/prophetnet-large-uncased-cnndm",
    "qwen2": "Qwen/Qwen2.5-0.5B-Instruct",
    "qwen2_5_vl": "Qwen/Qwen2.5-VL-3B-Instruct",
    "qwen2_5_vl_text": "the text model of Qwen/Qwen2.5-VL-3B-Instruct, saved by itself",
    "qwen2_moe": "Qwen/Qwen1.5-MoE-A2.7B-Chat",
    "qwen2_vl": "Qwen/Qwen2-VL-2B-Instruct",
    "qwen2_vl_text": "the text model of Qwen/Qwen2-VL-2B-Instruct, saved by itself",
    "qwen3": "Qwen/Qwen3-0.6B, Qwen/Qwen3-Embedding-0.6B, Qwen/Qwen3-Reranker-0.6B",
    "qwen3_moe": "Qwen/Qwen3-30B-A3B-Instruct-2507",
    "qwen3_vl": "Qwen/Qwen3-VL-2B-Instruct",
    "qwen3_vl_text": "the text model of Qwen/Qwen3-VL-2B-Instruct, saved by itself",
    "rembert": "google/rembert",
    "roberta": "FacebookAI/roberta-base, deepset/roberta-base-squad2",
    "roberta-prelayernorm": "andreasmadsen/efficient_mlm_m0.40",
    "roformer": "junnyu/roformer_chinese_base",
    "seed_oss": "ByteDance-Seed/Seed-OSS-36B-Instruct",
    "smollm3": "HuggingFaceTB/SmolLM3-3B",
    "smolvlm": "HuggingFaceTB/SmolVLM-256M-Instruct",
    "stablelm": "stabilityai/stablelm-2-1_6b-chat",
    "starcoder2": "bigcode/starcoder2-3b",
    "t5": "google-t5/t5-small, google/flan-t5-base",
    "t5gemma": "google/t5gemma-2b-2b-prefixlm-it, google/t5gemma-s-s-prefixlm",
    "umt5": "google/umt5-small",
    "moonshine": "UsefulSensors/moonshine-tiny, UsefulSensors/moonshine-base",
    "whisper": "openai/whisper-tiny, openai/whisper-large-v3-turbo, distil-whisper/distil-small.en",
    "xlm-roberta": "FacebookAI/xlm-roberta-base, BAAI/bge-m3, intfloat/multilingual-e5-small",
    "xlm-roberta-xl": "facebook/xlm-roberta-xl",
}
# general.architecture of GGUF files -> the model types that such a file may be.
GGUF: Mapping[str, tuple[str, ...]] = {
    "apertus": ("apertus",),
    "arcee": ("arcee",),
    "bert": ("bert", "distilbert", "roberta", "xlm-roberta"),
    "bitnet": ("bitnet",),
    "bloom": ("bloom",),
    "chatglm": ("glm",),
    "cohere2": ("cohere2",),
    "command-r": ("cohere",),
    "deepseek2": ("deepseek_v2", "deepseek_v3"),
    "ernie4_5": ("ernie4_5",),
    "exaone4": ("exaone4",),
    "falcon": ("falcon",),
    "gemma": ("gemma",),
    "gemma-embedding": ("gemma3_text",),
    "gemma2": ("gemma2",),
    "gemma3": ("gemma3", "gemma3_text"),
    "gemma3n": ("gemma3n", "gemma3n_text"),
    "glm4": ("glm4",),
    "gpt-oss": ("gpt_oss",),
    "gpt2": ("gpt2",),
    "gptneox": ("gpt_neox",),
    "granite": ("granite", "granitemoehybrid"),
    "granitehybrid": ("granitemoehybrid",),
    "granitemoe": ("granitemoe",),
    "hunyuan-dense": ("hunyuan_v1_dense",),
    "lfm2": ("lfm2",),
    "llama": ("llama", "llava", "mistral", "mistral3", "mixtral", "smolvlm"),
    "mamba2": ("mamba2",),
    "mistral3": ("mistral3",),
    "modern-bert": ("modernbert",),
    "mpt": ("mpt",),
    "nemotron": ("nemotron",),
    "nomic-bert": ("nomic_bert",),
    "olmo": ("olmo",),
    "olmo2": ("olmo2", "olmo3"),
    "olmoe": ("olmoe",),
    "phi2": ("phi",),
    "phi3": ("phi3",),
    "phimoe": ("phimoe",),
    "qwen2": ("qwen2",),
    "qwen2moe": ("qwen2_moe",),
    "qwen2vl": ("qwen2_5_vl", "qwen2_5_vl_text", "qwen2_vl", "qwen2_vl_text"),
    "qwen3": ("qwen3",),
    "qwen3moe": ("qwen3_moe",),
    "qwen3vl": ("qwen3_vl", "qwen3_vl_text"),
    "seed_oss": ("seed_oss",),
    "smollm3": ("smollm3",),
    "stablelm": ("stablelm",),
    "starcoder": ("gpt_bigcode",),
    "starcoder2": ("starcoder2",),
    "t5": ("mt5", "t5", "umt5"),
}
# What holds of all families of a kind, but for these.
BUT_FOR: Mapping[str, tuple[str, ...]] = {
    "CUDA": ("deepseek_v2", "deepseek_v3"),  # whose one head is too large
    "served together": ("prophetnet",),  # of whose targets those of one length are
}
HOLDS: Mapping[str, frozenset[Kind]] = {
    "edgellm's kernels": frozenset({"decoder", "encoder", "encoder-decoder", "speech"}),
    "calibrated int8 and int4": frozenset({"decoder", "encoder", "encoder-decoder"}),
    "LoRA, merged": frozenset({"decoder", "encoder", "encoder-decoder"}),
    "CUDA": frozenset({"decoder", "encoder-decoder"}),
    "bfloat16 cache": frozenset({"decoder"}),
    "int8 cache": frozenset({"decoder"}),
    "sessions": frozenset({"decoder"}),
    "served together": frozenset({"decoder", "encoder-decoder"}),
}


@dataclass(frozen=True)
class Entry:
    """A model type that is built natively. `gguf`: the architectures by which GGUF files name it. `has_more`: the model
    reads images, too, and its text model is built."""

    model_type: str
    kind: Kind
    checkpoints: str
    gguf: tuple[str, ...]
    has_more: bool = False


def entries() -> Iterator[Entry]:
    """By kind, then by name."""
    for kind, families in FAMILIES.items():
        for model_type in sorted({*families, *(WHOLES if kind == "decoder" else ())}):
            named = tuple(arch for arch, types in GGUF.items() if model_type in types)
            yield Entry(model_type, kind, CHECKPOINTS[model_type], named, model_type in WHOLES)


def through_optimum() -> list[str]:
    """Model types that only optimum's graphs make packages of."""
    native = {entry.model_type for entry in entries()}
    return sorted(OPTIMUM - native - NOWHERE.keys())

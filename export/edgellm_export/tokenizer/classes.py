"""Which tokenizer class transformers 5 takes for a checkpoint, and what is known of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgellm_export.tokenizer import bytelevel, llama, rearranged, unigram, wordpiece
from edgellm_export.tokenizer.rearranged import Rearrange
from edgellm_export.tokenizer.scheme import Scheme
from edgellm_export.tokenizer.source import PROPHETNET, VOCAB_JSON, VOCAB_TXT

# The class that takes tokenizer.json as it is.
AS_IT_IS = "TokenizersBackend"
PLAIN_MODEL, SPIECE, BPE_MODEL, SPM = "tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "spm.model"
TOKENIZER_JSON = "tokenizer.json"  # a class whose older files transformers 5 makes another tokenizer of than 4.57


@dataclass(frozen=True)
class TokenizerClass:
    """`model` is the kind of model that it makes, `file` the vocabulary that it reads where there is no tokenizer.json,
    whose pieces it may number in another order. `cleans_up`: texts, unless an option says that it does not."""

    scheme: Scheme
    model: str
    file: str
    rearrange: Rearrange = rearranged.as_it_is
    cleans_up: bool = False


BERT = TokenizerClass(wordpiece.bert, "WordPiece", VOCAB_TXT)
ROBERTA = TokenizerClass(bytelevel.roberta, "BPE", VOCAB_JSON)
GPT2 = TokenizerClass(bytelevel.gpt2, "BPE", VOCAB_JSON)
CLASSES: dict[str, TokenizerClass] = {
    **dict.fromkeys(("Bert", "Electra", "MobileBert", "SqueezeBert", "ConvBert", "LayoutLM", "Retribert"), BERT),
    "DistilBert": TokenizerClass(wordpiece.distilbert, "WordPiece", VOCAB_TXT),
    "MPNet": TokenizerClass(wordpiece.mpnet, "WordPiece", VOCAB_TXT),
    "ProphetNet": TokenizerClass(wordpiece.prophetnet, "WordPiece", PROPHETNET, cleans_up=True),
    "GPT2": GPT2,
    "GPTNeoX": TokenizerClass(bytelevel.gpt_neox, "BPE", VOCAB_JSON),
    "Qwen2": TokenizerClass(bytelevel.qwen2, "BPE", VOCAB_JSON),
    **dict.fromkeys(("Roberta", "Bart", "LED", "Longformer", "Mvp"), ROBERTA),
    "Deberta": TokenizerClass(bytelevel.deberta, "BPE", VOCAB_JSON),
    "Llama": TokenizerClass(llama.llama, "BPE", PLAIN_MODEL),
    "CodeLlama": TokenizerClass(llama.code_llama, "BPE", PLAIN_MODEL),
    "Gemma": TokenizerClass(llama.gemma, "BPE", PLAIN_MODEL),
    "Nllb": TokenizerClass(llama.nllb, "BPE", BPE_MODEL, rearranged.nllb),
    "T5": TokenizerClass(unigram.t5, "Unigram", SPIECE, rearranged.t5),
    "Pegasus": TokenizerClass(unigram.pegasus, "Unigram", SPIECE, rearranged.pegasus),
    "MBart": TokenizerClass(unigram.mbart, "Unigram", BPE_MODEL, rearranged.mbart),
    "MBart50": TokenizerClass(unigram.mbart50, "Unigram", BPE_MODEL, rearranged.mbart50),
    "XLMRoberta": TokenizerClass(unigram.xlm_roberta, "Unigram", BPE_MODEL, rearranged.xlm_roberta),
    "Camembert": TokenizerClass(unigram.camembert, "Unigram", BPE_MODEL, rearranged.camembert),
    "Albert": TokenizerClass(unigram.albert, "Unigram", SPIECE),
    "RemBert": TokenizerClass(unigram.rembert, "Unigram", TOKENIZER_JSON),
    "XLNet": TokenizerClass(unigram.xlnet, "Unigram", SPIECE),
    "DebertaV2": TokenizerClass(unigram.deberta_v2, "Unigram", SPM),
    "BigBird": TokenizerClass(unigram.big_bird, "Unigram", SPIECE),
}
# Classes that are written in Python, or around SentencePiece: they read their own files, even beside a tokenizer.json.
BY_OWN_RULES = (
    "Bartpho", "BertGeneration", "BertJapanese", "Bertweet", "BioGpt", "BlenderbotSmall", "ByT5",
    "CTRL", "Canine", "CpmAnt", "Cpm", "FSMT", "Flaubert", "GPTNeoXJapanese", "GPTSw3", "MyT5", "PLBart",
    "Perceiver", "Phobert", "RoCBert", "RoFormer", "Siglip", "Speech2Text", "SpeechT5", "Tapas", "Vits", "XLM",
)  # fmt: skip
# Classes of models that say nothing, or something that transformers knows to be wrong. Models that are not here have
# tokenizer.json as it is, unless tokenizer_config.json names a class.
MODELS: dict[str, str] = {
    **dict.fromkeys(
        ("bert", "distilbert", "electra", "ernie", "convbert", "layoutlm", "megatron-bert", "nezha", "nomic_bert",
         "squeezebert", "visual_bert"),
        "Bert",
    ),
    "mobilebert": "MobileBert", "mpnet": "MPNet", "prophetnet": "ProphetNet",
    **dict.fromkeys(("gpt2", "gpt_neo", "gptj", "opt", "phi", "codegen", "starcoder2", "dbrx"), "GPT2"),
    **dict.fromkeys(("gpt_neox", "mamba", "mamba2", "mpt", "olmo", "olmoe", "rwkv", "falcon_mamba"), "GPTNeoX"),
    **dict.fromkeys(("qwen2", "qwen2_moe", "qwen3", "qwen3_moe"), "Qwen2"),
    **dict.fromkeys(
        ("roberta", "roberta-prelayernorm", "bart", "longformer", "ibert", "data2vec-text", "mega", "mra"), "Roberta"
    ),
    "led": "LED", "mvp": "Mvp", "deberta": "Deberta", "code_llama": "CodeLlama",
    **dict.fromkeys(
        ("gemma", "gemma2", "gemma3", "gemma3_text", "gemma3n", "gemma3n_text", "recurrent_gemma"), "Gemma"
    ),
    **dict.fromkeys(("nllb", "nllb-moe"), "Nllb"),
    **dict.fromkeys(("t5", "mt5", "switch_transformers"), "T5"),
    "pegasus": "Pegasus", "mbart": "MBart", "mbart50": "MBart50",
    **dict.fromkeys(("xlm-roberta", "xmod"), "XLMRoberta"),
    "camembert": "Camembert",
    **dict.fromkeys(("albert", "yoso"), "Albert"),
    "rembert": "RemBert", "roformer": "RoFormer",
    "xlnet": "XLNet", "deberta-v2": "DebertaV2", "big_bird": "BigBird", "esm": "Esm", "marian": "Marian",
    "m2m_100": "M2M100",
}  # fmt: skip
# Models for which tokenizer_config.json's class is not believed: it is the model's own, or the file as it is.
OVERRULED = (
    "arctic", "ernie4_5", "fuyu", "internlm2", "internlm3", "jamba", "llava", "llava_next", "minicpm3", "minimax_m2",
    "modernbert", "modernbert-decoder", "nemotron", "phi3", "phi3_v", "phimoe", "qwen2", "smolvlm",
)  # fmt: skip
# Models whose own class is the file as it is; another class is not believed.
ALWAYS_AS_IT_IS = (
    "bigbird_pegasus", "glm", "glm4", "gpt_bigcode", "granite", "granitemoe", "mistral", "mistral3", "ministral",
    "mixtral", "nystromformer", "olmo2", "olmo3", "pegasus_x", "persimmon", "stablelm", "umt5", "xlm-roberta-xl",
)  # fmt: skip


def class_name(config: Mapping[str, Any], settings: Mapping[str, Any], is_byte_level: bool) -> str:
    """The class's name without "Tokenizer" or "Fast", AS_IT_IS for the one that takes tokenizer.json as it is.

    `config` is config.json, `settings` tokenizer_config.json. `is_byte_level`: tokenizer.json mentions GPT-2's bytes,
    which Llama's class would not know.
    """
    model = str(config.get("model_type") or "")
    named = settings.get("tokenizer_class") or config.get("tokenizer_class")
    name = _short(named) if isinstance(named, str) else None
    own = AS_IT_IS if model in ALWAYS_AS_IT_IS else MODELS.get(model, AS_IT_IS if model in OVERRULED else None)
    if name is None:
        return own or AS_IT_IS
    if own == AS_IT_IS or (name == "Llama" and is_byte_level and model not in OVERRULED):
        return AS_IT_IS
    if own is not None and model in OVERRULED:
        return own
    return name if name in (*CLASSES, *BY_OWN_RULES, "Esm", "Marian", "M2M100") else AS_IT_IS


def _short(name: str) -> str:
    return name.removesuffix("Fast").removesuffix("Tokenizer")

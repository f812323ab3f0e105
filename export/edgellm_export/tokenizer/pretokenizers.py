"""How byte-level BPE vocabularies cut text into words, by the name that GGUF files use (`tokenizer.ggml.pre`).

The expressions are those of the models' own tokenizer.json files; llama.cpp's src/llama-vocab.cpp lists them by name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tokenizers import Regex
from tokenizers.normalizers import NFC, Normalizer
from tokenizers.pre_tokenizers import ByteLevel, Digits, PreTokenizer, Sequence, Split

from edgellm.errors import UnsupportedModelError, nearest

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_TAIL = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = rf"{_CONTRACTION}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|{_TAIL}"
QWEN2 = rf"{_CONTRACTION}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}|{_TAIL}"
_LEAD = r"[^\r\n\p{L}\p{N}]?"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_SLASHED = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
TEKKEN = rf"{_LEAD}{_UPPER}*{_LOWER}+|{_LEAD}{_UPPER}+{_LOWER}*|\p{{N}}|{_SLASHED}"
SEED = rf"{_CONTRACTION}|{_LEAD}\p{{L}}+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+"
MINICPM5 = rf"{_CONTRACTION}|{_LEAD}\p{{L}}+|\p{{N}}+|{_TAIL}"
_ASCII_MARKS = r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]"
DEEPSEEK3 = (
    rf"{_ASCII_MARKS}[A-Za-z]+|[^\r\n\p{{L}}\p{{P}}\p{{S}}]?[\p{{L}}\p{{M}}]+| ?[\p{{P}}\p{{S}}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
WORDS = " ?[^(\\s|.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c)]+"  # of BLOOM, whose set has "(" and "|" by mistake
GPT4O = rf"{_LEAD}{_UPPER}*{_LOWER}+{_CONTRACTION}?|{_LEAD}{_UPPER}+{_LOWER}*{_CONTRACTION}?|\p{{N}}{{1,3}}|{_SLASHED}"


@dataclass(frozen=True)
class Pre:
    """How a text is cut. With `whole_words`, a word that is itself a token is not merged. `add_bos` is what holds when
    the file does not say."""

    make: Callable[[], PreTokenizer]
    normalizer: Callable[[], Normalizer] | None = None
    whole_words: bool = False
    add_bos: bool = False


def _splits(*patterns: str) -> Callable[[], PreTokenizer]:
    def make() -> PreTokenizer:
        steps = [Split(Regex(pattern), "isolated") for pattern in patterns]
        return Sequence([*steps, ByteLevel(add_prefix_space=False, use_regex=False)])

    return make


def _gpt2() -> PreTokenizer:
    return ByteLevel(add_prefix_space=False, use_regex=True)


def _single_digits() -> PreTokenizer:
    return Sequence([Digits(individual_digits=True), _gpt2()])


_LLAMA3 = Pre(_splits(LLAMA3), whole_words=True, add_bos=True)
_FALCON = _splits(r"[\p{P}\$\+<=>\^~\|`]+", GPT2, r"[0-9][0-9][0-9]")
_DEFAULT = _splits(r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", r"[0-9][0-9][0-9]")
_DEEPSEEK3 = _splits(r"\p{N}{1,3}", "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+", DEEPSEEK3)
_DEEPSEEK_CODER = _splits(r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+", r"\p{N}")

PRE_TOKENIZERS: dict[str, Pre] = {
    "default": Pre(_DEFAULT),
    "falcon": Pre(_FALCON),
    "qwen2": Pre(_splits(QWEN2), normalizer=NFC),  # as Qwen's own tokenizer.json; llama.cpp does not normalize
    "modern-bert": Pre(_gpt2, normalizer=NFC),  # likewise
    "tekken": Pre(_splits(TEKKEN), whole_words=True, add_bos=True),
    "deepseek-coder": Pre(_DEEPSEEK_CODER),
    "minicpm5": Pre(_splits(r"\p{N}{1,3}", MINICPM5), whole_words=True),
    "seed-coder": Pre(_splits(SEED)),
    "viking": Pre(_splits(WORDS, r"\p{N}")),
    **dict.fromkeys(("deepseek-v3", "hunyuan-dense"), Pre(_DEEPSEEK3)),
    **dict.fromkeys(("gpt-4o", "llama4", "kanana2"), Pre(_splits(GPT4O))),
    **dict.fromkeys(
        (
            *("gpt-2", "phi-2", "mpt", "olmo", "jais", "exaone4", "trillion", "granite-docling", "gigachat", "a.x-4.0"),
            *("mellum", "roberta-bpe"),
        ),
        Pre(_gpt2),
    ),
    **dict.fromkeys(
        ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "mellum2"),
        Pre(_single_digits),
    ),
    **dict.fromkeys(
        ("llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"),
        _LLAMA3,
    ),
    **dict.fromkeys(("smaug-bpe", "dbrx", "chatglm-bpe", "glm4"), Pre(_splits(LLAMA3))),
    **dict.fromkeys(
        ("stablelm2", "deepseek-r1-qwen", "megrez", "hunyuan", "kormo", "f2llmv2"),
        Pre(_splits(QWEN2)),
    ),
}


def pre_tokenizer(name: str, origin: str) -> Pre:
    """The pre-tokenizer of that name. Raises UnsupportedModelError for one that is not known, because a guess would
    change the tokens."""
    if name not in PRE_TOKENIZERS:
        raise UnsupportedModelError(
            f"{origin} uses the pre-tokenizer {name!r}; {nearest(name, PRE_TOKENIZERS)}; "
            "export the Hugging Face checkpoint instead, which has its tokenizer.json"
        )
    return PRE_TOKENIZERS[name]

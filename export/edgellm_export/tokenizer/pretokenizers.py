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
DEEPSEEK_LETTERS = (  # letters with a case, as Unicode had them
    "A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370-\u0373"
    "\u0376\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481\u048a-\u052f"
    "\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77"
    "\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d\u1f5f-"
    "\u1f7d\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb\u1fe0-\u1fec"
    "\u1ff2-\u1ff4\u1ff6-\u1ffc\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128\u212a-\u212d\u212f-"
    "\u2134\u2139\u213c-\u213f\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee\u2cf2\u2cf3"
    "\ua640-\ua66d\ua680-\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf\ufb00-\ufb06\ufb13-\ufb17"
    "\uff21-\uff3a\uff41-\uff5a\U00010400-\U0001044f\U000104b0-\U000104d3\U000104d8-\U000104fb\U00010c80-"
    "\U00010cb2\U00010cc0-\U00010cf2\U000118a0-\U000118df\U0001e900-\U0001e943"
)
DEEPSEEK_MARKS = "!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002"
DEEPSEEK_SIGNS = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"  # of Chinese and Korean, and what lies between
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
_DEEPSEEK_CODER = _splits(r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", DEEPSEEK_SIGNS, r"\p{N}")
_DEEPSEEK = _splits(
    r"[\r\n]", rf"\s?[{DEEPSEEK_LETTERS}]+", rf"\s?[{DEEPSEEK_MARKS}]+", r"\s+$", DEEPSEEK_SIGNS, r"\p{N}+"
)

PRE_TOKENIZERS: dict[str, Pre] = {
    "default": Pre(_DEFAULT),
    "falcon": Pre(_FALCON),
    "qwen2": Pre(_splits(QWEN2), normalizer=NFC),  # as Qwen's own tokenizer.json; llama.cpp does not normalize
    "modern-bert": Pre(_gpt2, normalizer=NFC),  # likewise
    "tekken": Pre(_splits(TEKKEN), whole_words=True, add_bos=True),
    "deepseek-coder": Pre(_DEEPSEEK_CODER),
    "deepseek-llm": Pre(_DEEPSEEK),
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

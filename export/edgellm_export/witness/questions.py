"""What is asked: texts with all that tokenizers differ in, chats, and texts long enough to compare numbers on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from edgellm_export.calibration.texts import EVALUATION_TOPICS, topics

LENGTH = 96  # tokens of a long text, at most

WORDS = (
    "Hello", "hello", "HELLO", "Hello, world!", "don't", "DON'T", "it's we'll I'm you've", "x", "I", "a b", "A.B.C.",
    "Straße", "naïve café", "nai\u0308ve", "ÅNGSTRÖM", "A\u030angstro\u0308m", "İstanbul ıI", "ŁÓDŹ", "ﬁne oﬃce",
    "Ωμέγα ΣΊΣΥΦΟΣ", "Привет, мир!", "Ёлка Йод", "שלום עולם", "مرحبا بالعالم", "नमस्ते दुनिया", "ไทยภาษา", "日本語の文字",
    "中文字符測試", "한국어 텍스트", "ｆｕｌｌ　ｗｉｄｔｈ", "½ ¼ ²³ ①", "™ ® ©", "€5.00 £3 ¥2", "😀", "👍🏽", "👨‍👩‍👧", "🇫🇷🇩🇪", "a😀b",
    "0", "12", "123", "1234", "12345", "1234567890", "3.14159", "1,000,000.00", "-7", "1e-5", "0x1F", "2024-02-29",
    "12:30", "٣٤٥", "１２３", "print('x')", "def f(x):\n    return x\n", "a\tb\t\tc", "if (a&&b) { c++; }", "<div>x</div>",
    "http://example.com/a?b=c#d", "user@example.com", "snake_case CamelCase", "C:\\temp\\x", "\"quoted\" 'text'",
    "“curly” ‘quotes’", "em—dash en–dash", "ellipsis… ...", "a-b_c/d", "!!!", "?!?", "((()))", "#$%^&*", "~`|", "--",
    "$$$", "[CLS]", "[MASK] x", "<s>", "</s>", "<pad>", "<unk>", "<mask>", "<|endoftext|>", "<|im_start|>user", "[INST]",
    "<extra_id_0>", "<0x0A>", "▁", "▁a ▁▁b", "Ġ", "ĠĠx", "##ing", "@@", "\u200b", "a\u200bb", "\ufeffx", "\u00a0", "a\u00a0b",
    "\u2028x", "soft\u00adhyphen", "\u0000", "a\u0000b", "\u0007bell", "\x7f", "\ufffd", "\ue000", "\U0001f1e6", "\u0301",
    "e\u0301\u0301", "z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚̯̞̠͍A̴̵̜̰͔ͫ͗͢", "مَرْحَبًا", "क्ष", "ﷺ", "ǅ ǆ Ǆ", "ß ẞ", "ſ", "K Å Ω", "𝒜𝓫𝔠", "①②", "㎏", "ｶﾞ",
    "supercalifragilisticexpialidocious", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "ababababababab", "The quick brown fox.",
)  # fmt: skip
BLANKS = (
    "", " ", "  ", "   ", "\n", "\n\n", "\n\n\n", "\r\n", "\t", " \n", "\n ", " \n \n ", "\t\n\t", "        ",
    "a  b", "a   b", "a    b", "a \n b", "a\n\nb", "a\r\nb\rc", "line one\nline two\n", "  indented\n    more\n",
    "trailing  ", "trailing\n", "mid \t mixed", ". . .", "a , b . c", "do n't", "Hello !", "it 's", " ' s",
)  # fmt: skip
TEXTS = (
    *BLANKS,
    *WORDS,
    *(f" {word}" for word in WORDS[::2]),
    *(f"{word} " for word in WORDS[1::4]),
    *(f"  {word}\n" for word in WORDS[2::4]),
    *(f"{a}{b}" for a, b in zip(WORDS[::3], WORDS[1::3], strict=False)),
    *(f"{a} {b}" for a, b in zip(WORDS[1::3], WORDS[2::3], strict=False)),
)

PAIRS = (
    ("How old are you?", "I am 6 years old."),
    ("a", "b"),
    ("The naïve café.", "Zürich!  Two  blanks"),
    (" leading", "trailing "),
    ("[SEP] inside", "</s> inside"),
)

SYSTEM = {"role": "system", "content": "You are terse."}
USER = {"role": "user", "content": "What is the weather in Paris?"}
ANSWER = {"role": "assistant", "content": "Sunny, 21 degrees."}
NEXT = {"role": "user", "content": "  And in\nRome? "}
CALL = {
    "role": "assistant",
    "content": "",
    "tool_calls": [{"type": "function", "function": {"name": "weather", "arguments": {"city": "Paris"}}}],
}
RESULT = {"role": "tool", "name": "weather", "content": "21"}
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "description": "Its name."}},
            "required": ["city"],
        },
    },
}


def chat(*messages: Mapping[str, Any], tools: Sequence[Any] | None = None, prompt: bool = True) -> dict[str, Any]:
    return {"conversation": list(messages), "tools": tools, "add_generation_prompt": prompt}


CHATS = (
    chat(USER),
    chat(USER, prompt=False),
    chat(SYSTEM, USER),
    chat(SYSTEM, USER, ANSWER, NEXT),
    chat(USER, ANSWER, prompt=False),
    chat(USER, tools=[TOOL]),
    chat(SYSTEM, USER, tools=[TOOL]),
    chat(USER, CALL, RESULT, tools=[TOOL]),
)


@dataclass(frozen=True)
class Question:
    """A line for reading.py. `checkpoint`: a directory or a hub id. `out`: where arrays go. `length`: the
    most tokens of a text whose numbers are compared. `embed`: by sentence-transformers. `ids`: in the place of texts
    where there is no tokenizer. `adapters`: of PEFT, each with its weight; `labels`: how many there are with them. `global_attention`: of
    an encoder-decoder, the token of a source that has it."""

    checkpoint: str
    revision: str | None
    task: str
    out: str
    length: int
    embed: bool = False
    adapters: Sequence[tuple[str, float]] = ()
    labels: int = 0
    global_attention: str | None = None
    ids: Sequence[Sequence[int]] = ()
    texts: Sequence[str] = TEXTS
    pairs: Sequence[tuple[str, str]] = PAIRS
    chats: Sequence[Mapping[str, Any]] = CHATS
    long_texts: Sequence[str] = field(default_factory=lambda: long_texts())

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def long_texts() -> list[str]:
    """Pieces of English, each longer than `LENGTH` tokens, and the last longer than sentence encoders take."""
    *first, last = topics(EVALUATION_TOPICS[:4])
    return [*(text[: 12 * LENGTH] for text in first), last[: 200 * LENGTH]]

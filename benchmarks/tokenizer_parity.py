"""Are the tokens of a tokenizer built from a GGUF file those of llama.cpp?

    python benchmarks/tokenizer_parity.py MODEL.gguf [--strings 10000] [--seed 0] [--save FILE.json]

llama.cpp runs in a virtual environment of its own (.cache/venvs/xllamacpp) as a server on the loopback address; each
string is tokenized twice, with control tokens in the text recognized and not. Prints the differences, then one JSON
line; exits with 1 if there is a difference.

Known to differ: a byte that the vocabulary lacks (SmolLM2 has no token for a few control characters) is dropped by
both, but afterwards `tokenizers`, and so the original model's tokenizer, merges what it stood between; llama.cpp does
not. Such bytes between mergeable neighbours are too rare in these strings to show.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from tokenizers import Tokenizer

from edgellm_export.sources.opening import open_checkpoint
from environments import python_of

SHOWN = 10

SERVER = """
import sys, xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.n_ctx, params.warmup, params.verbosity = sys.argv[1], 256, False, -1
params.hostnames, params.port = ["127.0.0.1"], 0
server = xllamacpp.Server(params)
print("listening", server.listening_address, flush=True)
sys.stdin.read()
"""

# First and last code point of scripts and symbol blocks.
SCRIPTS = (
    (0x20, 0x7E), (0xA0, 0xFF), (0x100, 0x24F), (0x2B0, 0x36F), (0x370, 0x3FF), (0x400, 0x4FF), (0x530, 0x58F),
    (0x590, 0x5FF), (0x600, 0x6FF), (0x900, 0x97F), (0x980, 0x9FF), (0xB80, 0xBFF), (0xE00, 0xE7F), (0xF00, 0xFFF),
    (0x10A0, 0x10FF), (0x1200, 0x137F), (0x13A0, 0x13FF), (0x1780, 0x17FF), (0x1E00, 0x1EFF), (0x2000, 0x206F),
    (0x2070, 0x20CF), (0x2100, 0x218F), (0x2190, 0x22FF), (0x2460, 0x24FF), (0x2500, 0x27BF), (0x3000, 0x30FF),
    (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0xE000, 0xE0FF), (0xFE00, 0xFE4F), (0xFF00, 0xFFEF), (0x10000, 0x100FF),
    (0x10330, 0x1034F), (0x12000, 0x123FF), (0x1D400, 0x1D7FF), (0x1F000, 0x1F2FF), (0x1F300, 0x1FAFF),
    (0x20000, 0x20100), (0xE0000, 0xE007F), (0x0, 0x1F), (0x7F, 0x9F), (0x660, 0x669), (0x966, 0x96F),
)  # fmt: skip
SPACES = (" ", "  ", "    ", "\t", "\n", "\n\n", "\r\n", "\r", "\x0b", "\x0c", "\x1c", "\x85", "\xa0", "\u1680",
          "\u2003", "\u2009", "\u200b", "\u2028", "\u202f", "\u205f", "\u3000", "\ufeff")  # fmt: skip
EMOJI = ("\U0001f600", "\U0001f44d\U0001f3fd", "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f1e9\U0001f1ea",
         "\u2764\ufe0f", "1\ufe0f\u20e3", "\U0001f3f4\U000e0067\U000e0062\U000e007f")  # fmt: skip


class Texts:
    """An endless, seeded stream of strings of many kinds."""

    def __init__(self, seed: int, control: list[str]) -> None:
        from pydoc_data.topics import topics

        self._random = random.Random(seed)
        self._prose = "\n".join(topics[name] for name in sorted(topics))
        self._code = Path(argparse.__file__).read_text(encoding="utf-8")
        self._control = control
        self._kinds = (self._english, self._scripts, self._spaces, self._numbers, self._source, self._marked, self._mix)

    def __iter__(self) -> Iterator[str]:
        while True:
            yield self._random.choice(self._kinds)()

    def _cut(self, text: str, most: int = 300) -> str:
        start = self._random.randrange(len(text) - most)
        return text[start : start + self._random.randint(1, most)]

    def _english(self) -> str:
        text = self._cut(self._prose)
        return self._random.choice((text, text.upper(), text.title(), text.replace("'", "\u2019"), text.swapcase()))

    def _source(self) -> str:
        return self._cut(self._code)

    def _scripts(self) -> str:
        blocks = self._random.choices(SCRIPTS, k=self._random.randint(1, 4))
        words = [self._word(*self._random.choice(blocks)) for _ in range(self._random.randint(1, 12))]
        return self._random.choice((" ", "", self._random.choice(SPACES))).join(words)

    def _word(self, first: int, last: int) -> str:
        return "".join(chr(self._random.randint(first, last)) for _ in range(self._random.randint(1, 8)))

    def _spaces(self) -> str:
        parts = [
            self._random.choice(SPACES) * self._random.choice((1, 1, 2, 3, 17))
            if self._random.random() < 0.6
            else self._random.choice(("a", "word", "'s", "'ll", "'LL", "9", "!", "\u00e9", "\u4f60", "don't", "..."))
            for _ in range(self._random.randint(1, 15))
        ]
        return "".join(parts)

    def _numbers(self) -> str:
        forms = ("{}", "{:,}", "-{}", "{}%", "${}.00", " {} ", "x{}", "{}th", "0x{:x}", "{:e}", "\u00bd{}", "\u2167{}")
        values = [self._random.choice(forms).format(self._random.randrange(10**12)) for _ in range(5)]
        return self._random.choice(("", " ", ", ", "\n", "/")).join(values)

    def _marked(self) -> str:
        parts = [
            self._random.choice(self._control) if self._random.random() < 0.5 else self._cut(self._prose, 20)
            for _ in range(self._random.randint(1, 8))
        ]
        return self._random.choice(("", " ", "\n")).join(parts)

    def _mix(self) -> str:
        kinds = (*self._kinds[:-1], lambda: self._random.choice(EMOJI))
        return "".join(self._random.choice(kinds)()[:40] for _ in range(self._random.randint(2, 8)))


@contextmanager
def llama_server(model: Path) -> Iterator[str]:
    command = [python_of("xllamacpp"), "-c", SERVER, str(model)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout
        address = next((line.split()[1] for line in process.stdout if line.startswith("listening")), None)
        if address is None:
            raise SystemExit(f"llama.cpp did not start with {model}")
        try:
            yield address
        finally:
            process.terminate()


def llama_ids(address: str, text: str, *, parse_special: bool) -> list[int]:
    body = json.dumps({"content": text, "add_special": True, "parse_special": parse_special}).encode()
    with urlopen(Request(f"{address}/tokenize", body, {"Content-Type": "application/json"})) as response:
        tokens: list[int] = json.load(response)["tokens"]
    return tokens


def our_ids(tokenizer: Tokenizer, text: str, *, parse_special: bool) -> list[int]:
    tokenizer.encode_special_tokens = not parse_special
    ids: list[int] = tokenizer.encode(text).ids
    return ids


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare tokens with llama.cpp's.")
    parser.add_argument("model", type=Path)
    parser.add_argument("--strings", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", type=Path, help="write the strings and llama.cpp's tokens to this JSON file")
    options = parser.parse_args()

    tokenizer = Tokenizer.from_buffer(open_checkpoint(str(options.model)).files["tokenizer.json"])
    control = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
    texts = Texts(options.seed, control)
    rows: list[dict[str, Any]] = []
    different = 0
    with llama_server(options.model.resolve()) as address:
        for text, _ in zip(texts, range(options.strings), strict=False):
            row: dict[str, Any] = {"text": text}
            for key, parse_special in (("ids", True), ("plain_ids", False)):
                row[key] = llama_ids(address, text, parse_special=parse_special)
                ours = our_ids(tokenizer, text, parse_special=parse_special)
                if ours != row[key]:
                    different += 1
                    if different <= SHOWN:
                        print(f"{key} differ for {text!r}\n  llama.cpp {row[key]}\n  edgellm   {ours}")
            rows.append(row)
    if options.save:
        options.save.parent.mkdir(parents=True, exist_ok=True)
        options.save.write_text(
            json.dumps(rows, ensure_ascii=True, separators=(",", ":")).replace("},{", "},\n{") + "\n"
        )
    result = {"model": options.model.name, "strings": len(rows), "comparisons": 2 * len(rows), "different": different}
    print(json.dumps(result))
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())

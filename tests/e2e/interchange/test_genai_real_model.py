"""SmolLM2-135M-Instruct at int8, as `edgellm export` leaves it, in onnxruntime-genai: text, chats and answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import edgellm
from interchange.peer import Peer

pytestmark = pytest.mark.real_model

TEXTS = [
    "Hello world, this is a test!",
    "x = 1\n\ty  = 2\r\n",
    "Привет 中文 🙂 é ﬁ",
    "<|im_start|>user\nHi<|im_end|>",
    "  two spaces, and a trailing one ",
    "it's 12345.67 o'clock, isn't it?",
    "",
]
MESSAGES = [
    [{"role": "user", "content": "Hi"}],
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is the capital of France?"}],
    [{"role": role, "content": "é 🙂\n"} for role in ("user", "assistant", "user")],
]


@pytest.fixture(scope="module")
def path(smollm2_package: Callable[[str], Path]) -> Path:
    return smollm2_package("int8")


@pytest.fixture(scope="module")
def model(path: Path) -> edgellm.Model:
    model = edgellm.load(path, kernels="off")
    assert isinstance(model, edgellm.Model)
    return model


@pytest.mark.parametrize("text", TEXTS)
def test_tokens_of_text(genai: Peer, path: Path, model: edgellm.Model, text: str) -> None:
    assert model.tokenizer is not None
    tokens = model.tokenizer.encode(text).tolist()
    assert genai.ask("tokenize", package=str(path), text=text) == tokens
    assert genai.ask("decode", package=str(path), tokens=tokens) == model.tokenizer.decode(tokens)


@pytest.mark.parametrize("messages", MESSAGES, ids=len)
def test_chat(genai: Peer, path: Path, model: edgellm.Model, messages: list[dict[str, str]]) -> None:
    assert model.tokenizer is not None
    rendered = genai.ask("chat_prompt", package=str(path), messages=messages)
    assert rendered == model.chat_template.render(messages)
    ids = genai.ask("tokenize", package=str(path), text=rendered)
    answer = genai.ask("generate", package=str(path), prompt=ids, max_new_tokens=40)
    expected = model.chat(messages, max_new_tokens=40)
    assert answer == [token for token in expected.tokens if token not in model.manifest.tokens.eos]
    assert genai.ask("decode", package=str(path), tokens=answer) == expected.text


def test_a_prompt_longer_than_our_chunk(genai: Peer, path: Path, model: edgellm.Model) -> None:
    assert model.tokenizer is not None
    ids = model.tokenizer.encode("The lighthouse keeper counted the ships, and wrote: " * 30).tolist()
    assert len(ids) > 256
    answer = genai.ask("generate", package=str(path), prompt=ids, max_new_tokens=40)
    assert answer == list(model.generate(ids, max_new_tokens=40).tokens)

"""/tokenize and /detokenize."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from edgellm.generation.call import ChatArguments, Request
from edgellm.models.decoder import Model
from edgellm.openai.options import plain
from edgellm.openai.schema import DetokenizeRequest, Text, TokenizeRequest, Tokens
from edgellm.server.failures import Refusal
from edgellm.server.http import Context, answered
from edgellm.server.pool import Loaded
from edgellm.text.tokenizer import Tokenizer, no_tokenizer


async def tokenize(http: HttpRequest, body: TokenizeRequest, context: Context) -> Response:
    """Of a text, or of a chat's messages as its template writes them."""
    async with context.pool.use(body.model) as loaded:
        if (body.prompt is None) == (body.messages is None):
            raise Refusal(400, "give either prompt or messages", param="prompt")
        tokens = await asyncio.to_thread(partial(_tokens, body, loaded))
        longest = loaded.model.info.context_length
        return answered(Tokens(tokens=tokens, count=len(tokens), max_model_len=longest))


async def detokenize(http: HttpRequest, body: DetokenizeRequest, context: Context) -> Response:
    async with context.pool.use(body.model) as loaded:
        text = await asyncio.to_thread(_tokenizer(loaded).decode, body.tokens, skip_special_tokens=False)
        return answered(Text(text))


def _tokens(body: TokenizeRequest, loaded: Loaded) -> list[int]:
    if body.prompt is not None:
        return list(map(int, _tokenizer(loaded).encode(body.prompt, add_special_tokens=body.add_special_tokens)))
    if not isinstance(loaded.model, Model):
        raise Refusal(400, f"the model {loaded.name!r} is not for chats; give prompt", param="messages")
    messages: list[Any] = [plain(message) for message in body.messages or []]
    call = loaded.model.read(Request([messages], {"max_new_tokens": 1}, chat=ChatArguments()))
    return list(map(int, call.beginnings[0].prompt))


def _tokenizer(loaded: Loaded) -> Tokenizer:
    if loaded.model.tokenizer is None:
        raise no_tokenizer()
    return loaded.model.tokenizer

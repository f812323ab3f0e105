"""/v1/embeddings and /rerank."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import numpy as np
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from edgellm.models.encoder import EncoderModel
from edgellm.openai.options import texts_of
from edgellm.openai.schema import (
    Embedding,
    EmbeddingRequest,
    Embeddings,
    EmbeddingUsage,
    Ranked,
    Ranking,
    RerankRequest,
)
from edgellm.server.failures import Refusal
from edgellm.server.http import Context, answered, identity
from edgellm.types import FloatArray


async def embeddings(http: HttpRequest, body: EmbeddingRequest, context: Context) -> Response:
    async with context.pool.use(body.model) as loaded:
        model = loaded.encoding()
        texts = texts_of(body.input, "input")
        async with loaded.turn:
            return await asyncio.to_thread(_embedded, loaded.name, model, texts, body)


async def rerank(http: HttpRequest, body: RerankRequest, context: Context) -> Response:
    """By a cross-encoder (one label), or by the vectors of a sentence encoder."""
    async with context.pool.use(body.model) as loaded:
        model = loaded.encoding()
        async with loaded.turn:
            return await asyncio.to_thread(_ranked, loaded.name, model, body)


def _embedded(name: str, model: EncoderModel, texts: list[Any], body: EmbeddingRequest) -> Response:
    vectors: FloatArray = model.embed(texts, truncation=None)
    if body.dimensions is not None:
        vectors = _shortened(vectors, body.dimensions)
    data = [
        Embedding(index=i, embedding=_as_base64(vector) if body.encoding_format == "base64" else vector.tolist())
        for i, vector in enumerate(vectors)
    ]
    read = _count(model, texts)
    return answered(Embeddings(data=data, model=name, usage=EmbeddingUsage(read, read)))


def _ranked(name: str, model: EncoderModel, body: RerankRequest) -> Response:
    scores = _scores(model, body)
    order = np.argsort(-scores, kind="stable")[: body.top_n]
    results = [Ranked(index=int(i), relevance_score=float(scores[i])) for i in order]
    if body.return_documents:
        for result in results:
            result.document = {"text": body.documents[result.index]}
    read = _count(model, [body.query, *body.documents])
    return answered(Ranking(id=identity("rerank"), model=name, results=results, usage=EmbeddingUsage(read, read)))


def _scores(model: EncoderModel, body: RerankRequest) -> FloatArray:
    """[documents] float32: cosines, or from 0 to 1."""
    if model.manifest.task == "text-classification" and len(model.labels) == 1:
        results = model.run([(body.query, document) for document in body.documents], truncation="longest_first")
        logits = np.array([result.logits[0] for result in results], np.float32)
        return (1 / (1 + np.exp(-logits))).astype(np.float32)
    vectors = model.embed([body.query, *body.documents], normalize=True, truncation=None)
    found: FloatArray = np.asarray(vectors[1:] @ vectors[0])
    return found


def _count(model: EncoderModel, texts: list[Any]) -> int:
    """Their tokens."""
    return sum(
        len(text) if not isinstance(text, str) else len(model.tokenizer.encode(text)) if model.tokenizer else 0
        for text in texts
    )


def _shortened(vectors: FloatArray, dimensions: int) -> FloatArray:
    """The first numbers of vectors, as models that were trained for it (Matryoshka) allow, of length 1 again."""
    if dimensions > vectors.shape[1]:
        raise Refusal(
            400, f"dimensions is {dimensions}, expected at most the model's {vectors.shape[1]}", param="dimensions"
        )
    cut: FloatArray = vectors[:, :dimensions]
    norms: FloatArray = np.maximum(np.linalg.norm(cut, axis=1, keepdims=True), np.float32(1e-12))
    return cut / norms


def _as_base64(vector: FloatArray) -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()

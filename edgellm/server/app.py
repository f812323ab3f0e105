"""The server's addresses."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from edgellm.errors import EdgellmError
from edgellm.openai import audio, schema
from edgellm.server.answers import Disconnected
from edgellm.server.audio import transcriptions, translations
from edgellm.server.chat import chat_completions
from edgellm.server.completions import completions
from edgellm.server.document import Operation, openapi
from edgellm.server.failures import Refusal, refusal_of
from edgellm.server.forms import form_of
from edgellm.server.guard import Guard
from edgellm.server.http import Context, answered, body_of, log
from edgellm.server.metrics import Metrics
from edgellm.server.page import chat_page
from edgellm.server.pool import ModelPool
from edgellm.server.responses import responses
from edgellm.server.settings import ServerSettings
from edgellm.server.tokens import detokenize, tokenize
from edgellm.server.vectors import embeddings, rerank

CLIENT_GONE = 499  # as others log it; nobody reads it

OPERATIONS = (
    Operation("/v1/chat/completions", chat_completions, schema.ChatRequest, schema.ChatCompletion, schema.ChatChunk),
    Operation("/v1/completions", completions, schema.CompletionRequest, schema.Completion, schema.Completion),
    Operation("/v1/responses", responses, schema.ResponsesRequest, schema.ResponseObject, schema.ResponseEvent),
    Operation("/v1/embeddings", embeddings, schema.EmbeddingRequest, schema.Embeddings),
    Operation(
        "/v1/audio/transcriptions", transcriptions, audio.TranscriptionRequest, audio.Transcript,
        audio.TranscriptEvent, verbose=audio.VerboseTranscript,
    ),
    Operation(
        "/v1/audio/translations", translations, audio.TranslationRequest, audio.Transcript,
        verbose=audio.VerboseTranscript,
    ),
    Operation("/rerank", rerank, schema.RerankRequest, schema.Ranking),
    Operation("/tokenize", tokenize, schema.TokenizeRequest, schema.Tokens),
    Operation("/detokenize", detokenize, schema.DetokenizeRequest, schema.Text),
)  # fmt: skip


def create_app(
    packages: Mapping[str, Path], settings: ServerSettings | None = None, *, preload: str | None = None
) -> Starlette:
    """An ASGI application that serves packages by name. `preload`: the name of one to load at the start; others are
    when they are first asked for. `state.end_answers` of the application ends answers where they are, when it must end.
    Raises PackageError."""
    settings = settings or ServerSettings()
    context = Context(ModelPool(packages, settings), settings)
    metrics = Metrics(context.pool)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        if preload is not None:
            await context.pool.load(preload)
        yield
        await context.pool.close()

    async def models(http: HttpRequest) -> Response:
        return answered(schema.ModelList(data=[_card(name, context.pool) for name in context.pool.packages]))

    async def one_model(http: HttpRequest) -> Response:
        name = http.path_params["name"]
        if name not in context.pool.packages:
            raise Refusal(404, f"the model {name!r} does not exist here", param="model", code="model_not_found")
        return answered(_card(name, context.pool))

    async def health(http: HttpRequest) -> Response:
        return answered(schema.Health("ok"))

    async def measured(http: HttpRequest) -> Response:
        return Response(metrics.text(), media_type=metrics.content_type)

    async def page(http: HttpRequest) -> Response:
        return chat_page()

    async def document(http: HttpRequest) -> Response:
        return Response(msgspec.json.encode(openapi(OPERATIONS)), media_type="application/json")

    plain = {
        "/": page,
        "/v1/models": models, "/v1/models/{name:path}": one_model, "/health": health, "/metrics": measured,
        "/openapi.json": document,
    }  # fmt: skip
    routes = [Route(path, _told(handler, path, metrics), methods=["GET"]) for path, handler in plain.items()]
    for operation in OPERATIONS:
        handler = _told(_reading(operation, context), operation.path, metrics)
        routes.append(Route(operation.path, handler, methods=["POST"]))
    app = Starlette(
        routes=routes,
        middleware=[Middleware(Guard, settings=settings)],
        exception_handlers={HTTPException: _http_error},
        lifespan=lifespan,
    )
    app.state.end_answers = context.pool.end_answers
    return app


Handler = Callable[[HttpRequest], Awaitable[Response]]


def _reading(operation: Operation, context: Context) -> Handler:
    async def handle(http: HttpRequest) -> Response:
        read = form_of if operation.is_form else body_of
        body = await read(http, operation.request, context.settings)
        response: Response = await operation.handler(http, body, context)
        return response

    return handle


def _told(handler: Handler, path: str, metrics: Metrics) -> Handler:
    """A handler whose errors are answers, and that is counted."""

    async def handle(http: HttpRequest) -> Response:
        started = time.perf_counter()
        try:
            response = await handler(http)
        except Refusal as refusal:
            response = _refused(refusal)
        except EdgellmError as error:
            response = _refused(refusal_of(error))
        except (Disconnected, ClientDisconnect):
            response = Response(status_code=CLIENT_GONE)
        except Exception:
            log.exception("%s failed", path)
            response = _refused(Refusal(500, "the server failed; its log says why"))
        metrics.requests.labels(path, response.status_code).inc()
        metrics.seconds.labels(path).observe(time.perf_counter() - started)
        return response

    return handle


def _refused(refusal: Refusal) -> Response:
    return JSONResponse(refusal.body(), refusal.status, refusal.headers)


async def _http_error(http: HttpRequest, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = http.scope["path"]  # `http.url` is of the Host header, too, which may be anything
    message = {404: f"there is nothing at {path}", 405: f"{http.method} is not for {path}"}
    refusal = Refusal(error.status_code, message.get(error.status_code, str(error.detail)))
    return JSONResponse(refusal.body(), error.status_code, error.headers)


def _card(name: str, pool: ModelPool) -> schema.ModelCard:
    manifest: Any = pool.manifests[name]
    loaded = any(one.name == name for one in pool.loaded)
    return schema.ModelCard(
        id=name, created=pool.started, task=manifest.task, context_length=manifest.context_length, loaded=loaded
    )

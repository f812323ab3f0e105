"""Requests to one model that come and go at any step: each gets what it would get alone."""

from edgellm.serving.answer import Answer
from edgellm.serving.async_model import AsyncModel
from edgellm.serving.engine import Engine, EngineStats

__all__ = ["Answer", "AsyncModel", "Engine", "EngineStats"]

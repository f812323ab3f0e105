"""OpenAI's HTTP interface over packages: `edgellm serve`, or an ASGI application for another program."""

from edgellm.server.app import create_app
from edgellm.server.settings import ServerSettings

__all__ = ["ServerSettings", "create_app"]

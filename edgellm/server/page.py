"""The page at /: a chat in one file. The browser is told to take nothing from anywhere else, and to run no other
script."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from importlib import resources

from starlette.responses import Response


@cache
def page() -> tuple[bytes, str]:
    """The page, and its content security policy."""
    text = (resources.files("edgellm.server") / "page.html").read_text(encoding="utf-8")
    script, style = (re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL) for tag in ("script", "style"))
    policy = {
        "default-src": "'none'", "script-src": _hashes(script), "style-src": _hashes(style), "connect-src": "'self'",
        "base-uri": "'none'", "form-action": "'none'", "frame-ancestors": "'none'",
    }  # fmt: skip
    return text.encode(), "; ".join(f"{name} {value}" for name, value in policy.items())


def chat_page() -> Response:
    content, policy = page()
    headers = {
        "Content-Security-Policy": policy, "Referrer-Policy": "no-referrer", "X-Content-Type-Options": "nosniff",
        "Cache-Control": "no-cache",
    }  # fmt: skip
    return Response(content, media_type="text/html", headers=headers)


def _hashes(texts: list[str]) -> str:
    """As the header names what may stand in the page itself."""
    digests = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in texts)
    return " ".join(f"'sha256-{digest}'" for digest in digests)

"""The board for WSGI servers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from board import answer

__all__ = ["application"]


def application(
    environ: dict[str, Any], start_response: Callable[..., object]
) -> Iterable[bytes]:
    """Serve one request."""
    body = json.dumps(answer(environ["REQUEST_METHOD"], environ["PATH_INFO"])).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]

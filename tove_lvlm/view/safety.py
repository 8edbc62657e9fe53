"""What keeps strangers out: a page that somebody else wrote, in the same browser, cannot read or drive this one.

Gradio's own check of origins covers some requests; this covers all, before gradio sees them.
"""

from collections.abc import Collection
from typing import Any
from urllib.parse import urlsplit

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
_FOREIGN = (b"cross-site", b"same-site")


class SameOriginOnly:
    """ASGI middleware: 403 for requests of another origin, and for names that are not this machine's.

    A name that an attacker made point to 127.0.0.1 (DNS rebinding) would otherwise make his page one of this origin.

    Args:
        app: What is protected.
        hosts: Names that the page is reached by, without a port; empty lets every name pass, where a password is asked
            for.
    """

    def __init__(self, app: Any, hosts: Collection[str] = LOOPBACK):
        self._app, self._hosts = app, frozenset(hosts)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """See ASGI."""
        if scope["type"] not in ("http", "websocket"):
            return await self._app(scope, receive, send)
        reason = refusal(dict(scope["headers"]), self._hosts)
        if reason is None:
            return await self._app(scope, receive, send)
        if scope["type"] == "websocket":
            return await send({"type": "websocket.close", "code": 1008})
        await send({"type": "http.response.start", "status": 403, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": reason.encode()})


def refusal(headers: dict[bytes, bytes], hosts: Collection[str]) -> str | None:
    """Why a request is refused; None where it is not.

    Args:
        headers: Lower-case names, as ASGI gives them.
        hosts: As for `SameOriginOnly`.
    """
    host = headers.get(b"host", b"").decode("latin-1")
    if hosts and _without_port(host) not in hosts:
        return f"this page is not called `{host}`"
    origin = headers.get(b"origin", b"").decode("latin-1")
    if origin and urlsplit(origin).netloc != host:
        return f"a page of {origin} may not use this one"
    is_link = headers.get(b"sec-fetch-mode") == b"navigate" and headers.get(b"sec-fetch-dest") == b"document"
    if headers.get(b"sec-fetch-site") in _FOREIGN and not is_link:
        return "a page of another site may not use this one"
    return None


def _without_port(host: str) -> str:
    name, _, port = host.rpartition(":")
    return (name if port.isdecimal() and name else host).lower()

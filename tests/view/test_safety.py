"""Requests of other pages are refused before anything of ours sees them."""

import asyncio

import pytest

from tove_lvlm.config import UserError
from tove_lvlm.view.safety import LOOPBACK, SameOriginOnly, refusal
from tove_lvlm.view.server import ViewConfig

OWN = {b"host": b"127.0.0.1:7860"}


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({}, None),
        ({b"host": b"localhost:7860"}, None),
        ({b"host": b"[::1]:7860"}, None),
        ({b"origin": b"http://127.0.0.1:7860"}, None),
        ({b"sec-fetch-site": b"same-origin", b"sec-fetch-mode": b"cors"}, None),
        ({b"sec-fetch-site": b"cross-site", b"sec-fetch-mode": b"navigate", b"sec-fetch-dest": b"document"}, None),
        ({b"host": b"evil.example:7860"}, "this page is not called `evil.example:7860`"),
        ({b"host": b"evil.example"}, "this page is not called"),
        ({b"origin": b"http://evil.example"}, "a page of http://evil.example may not use this one"),
        ({b"origin": b"http://127.0.0.1:8000"}, "may not use this one"),
        ({b"origin": b"null"}, "a page of null may not use this one"),
        ({b"sec-fetch-site": b"cross-site", b"sec-fetch-mode": b"no-cors"}, "another site"),
        ({b"sec-fetch-site": b"same-site", b"sec-fetch-mode": b"cors"}, "another site"),
        ({b"sec-fetch-site": b"cross-site", b"sec-fetch-mode": b"navigate", b"sec-fetch-dest": b"iframe"}, "site"),
    ],
)
def test_who_may_come_in(headers, reason):
    found = refusal(OWN | headers, LOOPBACK)
    assert found is None if reason is None else reason in found


def test_behind_a_password_any_name_will_do():
    assert refusal({b"host": b"gpu7.example:80"}, ()) is None
    assert refusal({b"host": b"gpu7.example:80", b"origin": b"http://evil.example"}, ()) is not None


def test_a_refused_request_does_not_reach_the_application():
    reached, sent = [], []

    async def application(scope, receive, send):
        reached.append(scope["type"])

    async def send(message):
        sent.append(message)

    def ask(kind: str, headers: dict[bytes, bytes]) -> None:
        scope = {"type": kind, "headers": list(headers.items())}
        asyncio.run(SameOriginOnly(application)(scope, None, send))

    ask("http", OWN | {b"origin": b"http://evil.example"})
    assert (reached, sent[0]["status"]) == ([], 403)
    ask("websocket", {b"host": b"evil.example"})
    assert (reached, sent[-1]["type"]) == ([], "websocket.close")
    ask("http", OWN)
    assert reached == ["http"]


def test_other_machines_need_a_password(tmp_path):
    with pytest.raises(UserError, match="set TOVE_VIEW_PASSWORD"):
        ViewConfig(models=(tmp_path,), host="0.0.0.0")
    assert not ViewConfig(models=(tmp_path,), host="0.0.0.0", password="x").is_local
    assert ViewConfig(models=(tmp_path,)).is_local

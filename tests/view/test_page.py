"""The page over real HTTP and in a real browser, in small: what it serves, whom it refuses, and a question answered."""

import json
import os
import re

import httpx
import pytest

from helpers.browsers import browser, needs_browser
from helpers.pictures import paint
from tove_lvlm.inference.chat import Chat
from tove_lvlm.view.pictures import MAX_BYTES

QUESTION = "How many objects are there?"


def test_only_the_pages_own_files_are_served(shown, demo_folder):
    client = httpx.Client(base_url=shown.address)
    assert "ToVE view" in client.get("/").text
    secret = demo_folder / "tove" / "config.json"
    tricks = [
        f"/gradio_api/file={secret}",
        "/gradio_api/file=/etc/passwd",
        f"/gradio_api/file={shown.temporary}/../../../../etc/passwd",
        "/gradio_api/file=%2Fetc%2Fpasswd",
        "/gradio_api/file=..%2F..%2F..%2Fetc%2Fpasswd",
        f"/gradio_api/file=file://{secret}",
        "/gradio_api/file=pyproject.toml",
        "/static/../../../../../../etc/passwd",
        "/static/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "/assets/..%2f..%2f..%2f..%2fetc%2fpasswd",
        "/gradio_api/proxy=http://example.com/",
    ]
    for trick in tricks:
        found = client.send(client.build_request("GET", httpx.URL(shown.address).copy_with(raw_path=trick.encode())))
        assert found.status_code >= 400, trick
        assert "root:" not in found.text
        assert "architectures" not in found.text
    for hidden in ("/docs", "/redoc", "/monitoring", "/monitoring/summary"):
        assert client.get(hidden).status_code >= 400, hidden


def test_a_file_of_this_machine_cannot_be_named_as_an_upload(shown, demo_folder):
    """Whoever writes requests by hand gets no further than the page."""
    client = httpx.Client(base_url=shown.address)
    config = client.get("/config").json()
    ask = next(one for one in config["dependencies"] if len(one["inputs"]) == 7)
    picture = {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}
    data = [0, picture, "", QUESTION, [], ["depth"], 8]
    body = {"data": data, "fn_index": ask["id"], "session_hash": "abc", "trigger_id": None}
    joined = client.post("/gradio_api/queue/join", json=body)
    text = joined.text
    if joined.status_code == 200:
        with client.stream("GET", "/gradio_api/queue/data?session_hash=abc", timeout=60) as stream:
            for line in stream.iter_lines():
                text += line
                if "process_completed" in line or "close_stream" in line:
                    break
    assert "root:" not in text
    assert '"success":true' not in text.replace(" ", "")


def test_other_pages_are_refused(shown):
    client = httpx.Client(base_url=shown.address)
    assert client.get("/config").status_code == 200
    for headers in (
        {"Origin": "http://evil.example"},
        {"Host": "evil.example"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
    ):
        assert client.get("/config", headers=headers).status_code == 403
        assert client.post("/gradio_api/queue/join", headers=headers, json={}).status_code == 403


def test_a_file_that_is_too_large_is_refused(shown):
    client = httpx.Client(base_url=shown.address)
    large = client.post("/gradio_api/upload", files={"files": ("a.png", b"\0" * (MAX_BYTES + 1))}, timeout=60)
    assert large.status_code == 413
    small = client.post("/gradio_api/upload", files={"files": ("a.png", b"\0" * 100)})
    (path,) = small.json()
    assert path.startswith(str(shown.temporary))


@needs_browser
def test_a_picture_is_asked_about_in_a_browser(shown, demo_folder, scene, tmp_path):
    chat = Chat.load(demo_folder / "tove", "cpu")
    with browser() as chromium:
        page = chromium.new_page(viewport={"width": 1440, "height": 900})
        requests, errors = [], []
        page.on("request", lambda request: requests.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(shown.address)
        page.wait_for_selector("body[data-tove=ready]", state="attached", timeout=60_000)
        assert page.title() == "ToVE view"
        page.locator("#tove-picture input[type=file]").first.set_input_files(scene)
        page.wait_for_selector(".tove-bar")
        page.get_by_label("Question", exact=True).fill(QUESTION)
        page.get_by_role("button", name="Ask", exact=True).click()
        said = page.locator("#tove-chat [data-testid=bot]").last
        said.wait_for()
        page.wait_for_function("document.querySelector('#tove-stats').innerText.match(/First token after\\s+\\d/)")
        assert said.inner_text().strip() == chat.ask(scene, QUESTION)
        assert "gradio" not in page.locator("body").inner_text().lower()
        own = re.compile(rf"{re.escape(shown.address)}|data:|blob:")
        assert not [url for url in requests if not own.match(url)], "nothing is fetched from elsewhere"
        assert errors == []


@pytest.mark.full
def test_nothing_is_left_behind(demo_folder, tmp_path):
    from helpers.viewing import viewing

    paint(tmp_path / "a.png", seed=0)
    environment = {"TOVE_VIEW_PASSWORD": "secret"}
    with viewing(["--model", str(demo_folder / "clip"), "--examples", str(tmp_path)], environment) as running:
        client = httpx.Client(base_url=running.address)
        assert client.get("/config").status_code == 401
        assert client.post("/login", data={"username": "tove", "password": "guess"}).status_code == 400
        assert client.post("/login", data={"username": "tove", "password": "secret"}).status_code == 200
        assert json.loads(client.get("/config").text)["title"] == "ToVE view"
        worker = running.worker()
        running.process.terminate()
        assert running.process.wait(60) == 0
        assert not list(running.temporary.glob("tove-view-*"))
        with pytest.raises(ProcessLookupError):
            os.kill(worker, 0)

"""A hub on this machine: the part of its REST interface that moving models uses, and its ways of failing.

    with FakeHub({"owner/name": {"config.json": b"{}", "model.safetensors": content}}) as hub:
        HF_ENDPOINT=hub.url

Files of 1 kB and more are served as Git LFS ones, so with a SHA-256; smaller ones with git's own hash.
"""

import base64
import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "c0ffee" + "0" * 34
_LFS = 1000
Answer = tuple[int, dict[str, str], bytes]
"""Status, headers (a `Content-Length` among them goes before the content's own) and content."""


class FakeHub:
    """Serves repositories until the block ends.

    Args:
        repositories: Hub id -> file name -> content; their only branch is main, at COMMIT.
    """

    def __init__(self, repositories: dict[str, dict[str, bytes]]):
        self.repositories = repositories
        self.gated: set[str] = set()
        """Repositories that say what they hold and give nothing of it away."""
        self.may_write = True
        """Whether a token that may write is sent."""
        self.commits: list[str] = []
        """Titles of what was uploaded."""
        self.cut: dict[str, int] = {}
        """File name -> after so many bytes the connection is cut, once."""
        self.more: dict[str, int] = {}
        """File name -> so many bytes are sent after its content."""
        self.slow: dict[str, float] = {}
        """File name -> seconds between two bytes."""
        self.alter: Callable[[str, str, Answer], Answer] = lambda method, path, answer: answer
        """(method, path, answer) -> the answer that is given instead; of what is refused there is none."""
        self.paced: dict[str, float] = {}
        """File name -> seconds between two kilobytes."""
        self.asked: list[tuple[str, str, str | None]] = []
        """(method, path, Range) of every request."""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))

    @property
    def url(self) -> str:
        """For HF_ENDPOINT."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def downloads(self, name: str) -> list[str | None]:
        """The ranges that were asked for of a file."""
        return [given for method, path, given in self.asked if method == "GET" and path.endswith(f"/{name}")]

    def __enter__(self) -> "FakeHub":
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *error) -> None:
        self._server.shutdown()
        self._server.server_close()


def _handler(hub: FakeHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(ConnectionError):  # the other side had enough
                super().handle()

        def do_HEAD(self) -> None:
            self._answer()

        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            path = self.path.partition("?")[0]
            hub.asked.append((self.command, path, None))
            wanted = re.fullmatch(r"/api/(repos/create|models/([^/]+/[^/]+)/(preupload|commit|branch)/([^/]+))", path)
            if not hub.may_write:
                self._fail(403, "Forbidden")
            elif path == "/api/repos/create":
                asked = json.loads(content)
                repo = f"{asked.get('organization') or 'me'}/{asked['name']}"
                hub.repositories.setdefault(repo, {})
                self._json({"url": f"{hub.url}/{repo}", "id": repo})
            elif path == "/api/validate-yaml":
                self._json({"errors": [], "warnings": []})
            elif wanted[3] == "preupload":  # all of it in the commit itself, as small files go
                as_asked = {"uploadMode": "regular", "shouldIgnore": False}
                modes = [{"path": file["path"], **as_asked} for file in json.loads(content)["files"]]
                self._json({"files": modes})
            elif wanted[3] == "commit":
                for line in map(json.loads, content.splitlines()):
                    if line["key"] == "header":
                        hub.commits.append(line["value"]["summary"])
                    else:
                        file = line["value"]
                        hub.repositories[wanted[2]][file["path"]] = base64.b64decode(file["content"])
                self._json(
                    {"success": True, "commitOid": COMMIT, "commitUrl": f"{hub.url}/{wanted[2]}/commit/{COMMIT}"}
                )
            else:
                self._json({})

        def log_message(self, *args) -> None:
            pass

        def _answer(self) -> None:
            path = self.path.partition("?")[0]
            hub.asked.append((self.command, path, self.headers.get("Range")))
            api = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?", path)
            resolve = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
            repo, revision = (api[1], api[3]) if api else (resolve[1], resolve[2]) if resolve else (None, None)
            if repo not in hub.repositories:
                self._fail(404, "RepoNotFound")
            elif revision not in (None, "main", COMMIT):
                self._fail(404, "RevisionNotFound")
            elif api:
                self._json(_tree(hub.repositories[repo]) if api[2] == "tree" else _info(repo, hub.repositories[repo]))
            elif repo in hub.gated:
                self._fail(403 if self.headers.get("Authorization") else 401, "GatedRepo")
            elif resolve[3] not in hub.repositories[repo]:
                self._fail(404, "EntryNotFound")
            else:
                self._file(resolve[3], hub.repositories[repo][resolve[3]])

        def _fail(self, status: int, code: str) -> None:
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def _json(self, value: object) -> None:
            self._bytes(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

        def _file(self, name: str, content: bytes) -> None:
            etag = f'"{_sha256(content) if len(content) >= _LFS else _blob(content)}"'
            headers = {"X-Repo-Commit": COMMIT, "ETag": etag, "Accept-Ranges": "bytes"}
            if len(content) >= _LFS:
                headers |= {"X-Linked-Size": str(len(content)), "X-Linked-Etag": etag}
            start = int(re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "bytes=0-"))[1])
            if start:
                headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            stop = hub.cut.pop(name, None) if self.command == "GET" else None
            content = content[start:] + b"x" * hub.more.get(name, 0)
            pause, size = (hub.slow[name], 1) if name in hub.slow else (hub.paced.get(name), 1024)
            self._bytes(206 if start else 200, content, headers, stop, pause, size)

        def _bytes(
            self,
            status: int,
            content: bytes,
            headers: dict[str, str],
            stop: int | None = None,
            pause: float | None = None,
            size: int = 1,
        ) -> None:
            status, headers, content = hub.alter(self.command, self.path.partition("?")[0], (status, headers, content))
            self.send_response(status)
            for key, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command in ("GET", "POST") and pause is None:
                self.wfile.write(content[:stop])
            elif self.command == "GET":
                with contextlib.suppress(OSError):  # the other side had enough
                    for at in range(0, len(content), size):
                        self.wfile.write(content[at : at + size])
                        threading.Event().wait(pause)  # not time.sleep, which tests take away
            self.close_connection = stop is not None

    return Handler


def _info(repo: str, files: dict[str, bytes]) -> dict:
    siblings = []
    for name, content in files.items():
        entry = {"rfilename": name, "size": len(content), "blobId": _blob(content)}
        if len(content) >= _LFS:
            entry["lfs"] = {"sha256": _sha256(content), "size": len(content), "pointerSize": 130}
        siblings.append(entry)
    return {"id": repo, "modelId": repo, "sha": COMMIT, "siblings": siblings, "private": False, "tags": []}


def _tree(files: dict[str, bytes]) -> list[dict]:
    entries = []
    for name, content in files.items():
        entry = {"type": "file", "path": name, "size": len(content), "oid": _blob(content)}
        if len(content) >= _LFS:
            entry["lfs"] = {"oid": _sha256(content), "size": len(content), "pointerSize": 130}
        entries.append(entry)
    return entries


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _blob(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()

"""A small server that speaks the interface of the Hugging Face Hub, with cut connections."""

import base64
import contextlib
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


class Hub:
    """Repositories by "models/ORG/NAME" or "datasets/ORG/NAME": their files by name. `cuts`: bytes after which a GET is cut."""

    def __init__(self):
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.gated: set[str] = set()
        self.cuts: list[int] = []
        self.requests: list[str] = []
        self.pushed: dict[str, dict[str, bytes]] = {}
        self.objects: dict[str, bytes] = {}
        self.token = ""
        self.private: dict[str, bool] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("OfHub", (Handler,), {"hub": self}))
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()

    def sha(self, repository):
        content = b"".join(name.encode() + data for name, data in sorted(self.repositories[repository].items()))
        return hashlib.sha1(content).hexdigest()

    def read(self):
        """The names of the files whose content was asked for."""
        return [unquote(path.rpartition("/")[2]) for method, _, path in (r.partition(" ") for r in self.requests) if
                method == "GET" and "/resolve/" in path]  # fmt: skip


class Handler(BaseHTTPRequestHandler):
    """Answers a request from the repositories of `hub`."""

    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def answer(self, status, body=b"", headers=(), kind="application/json"):
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in (("Content-Length", str(len(content))), ("Content-Type", kind), *headers):
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def body(self):
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def repository(self, kind, name, revision):
        key = f"{kind}/{name}"
        if key in self.hub.gated:
            self.answer(403, b"", [("X-Error-Code", "GatedRepo"), ("X-Error-Message", "Access is restricted.")])
        elif key not in self.hub.repositories:
            self.answer(404, b"", [("X-Error-Code", "RepoNotFound"), ("X-Error-Message", "Repository not found")])
        elif revision not in ("main", "v1", self.hub.sha(key)):
            self.answer(404, b"", [("X-Error-Code", "RevisionNotFound"), ("X-Error-Message", "Invalid rev")])
        else:
            return key
        return None

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        if found := re.fullmatch(r"/api/(models|datasets)/([^/]+/[^/]+)/(revision|tree)/(.+)", path):
            kind, name, what, revision = found.groups()
            if key := self.repository(kind, name, revision):
                files = self.hub.repositories[key]
                tree = [{"type": "file", "path": f, "size": len(files[f]), "oid": "0" * 40} for f in files]
                about = {"id": name, "sha": self.hub.sha(key), "siblings": [{"rfilename": f} for f in files]}
                self.answer(200, about if what == "revision" else tree)
        elif found := re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            if key := self.repository("datasets" if found[1] else "models", found[2], found[3]):
                self.file(key, found[4])
        else:
            self.answer(404)

    def file(self, key, name):
        files = self.hub.repositories[key]
        if name not in files:
            self.answer(404, b"", [("X-Error-Code", "EntryNotFound")])
            return
        content, start = files[name], 0
        etag = hashlib.sha256(content).hexdigest()
        headers = [("ETag", f'"{etag}"'), ("X-Repo-Commit", self.hub.sha(key)), ("Accept-Ranges", "bytes")]
        if asked := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
            start = int(asked[1])
            headers.append(("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}"))
        if self.command == "GET" and self.hub.cuts and len(content) - start > self.hub.cuts[0]:
            self.send_response(206 if start else 200)
            for header in (("Content-Length", str(len(content) - start)), *headers):
                self.send_header(*header)
            self.end_headers()
            self.wfile.write(content[start : start + self.hub.cuts.pop(0)])
            self.wfile.flush()
            self.close_connection = True
            self.connection.close()
            return
        self.answer(206 if start else 200, content[start:], headers, "application/octet-stream")

    def do_POST(self):
        path, body = unquote(urlsplit(self.path).path), self.body()
        self.hub.requests.append(f"POST {path}")
        if not self.hub.token or self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            self.answer(401, b"", [("X-Error-Message", "Invalid username or password.")])
        elif path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked.get('organization')}/{asked['name']}"
            self.hub.pushed[name], self.hub.private[name] = {}, asked.get("private") or asked.get("visibility") == "private"
            self.answer(200, {"url": f"{self.hub.address}/{asked.get('organization')}/{asked['name']}"})
        elif path == "/api/validate-yaml":
            self.answer(200, {"errors": [], "warnings": []})
        elif "/preupload/" in path:
            files = json.loads(body)["files"]
            mode = {f["path"]: "lfs" if f["path"].endswith("safetensors") else "regular" for f in files}
            self.answer(200, {"files": [
                {"path": f["path"], "uploadMode": mode[f["path"]], "shouldIgnore": False} for f in files
            ]})  # fmt: skip
        elif path.endswith("/objects/batch"):
            objects = json.loads(body)["objects"]
            self.answer(200, {"transfer": "basic", "objects": [
                {**o, "actions": {"upload": {"href": f"{self.hub.address}/lfs/{o['oid']}"}}} for o in objects
            ]}, kind="application/vnd.git-lfs+json")  # fmt: skip
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", path):
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    self.hub.pushed[found[1]][value["path"]] = base64.b64decode(value["content"])
                if line["key"] == "lfsFile":
                    self.hub.pushed[found[1]][value["path"]] = self.hub.objects[value["oid"]]
            oid = "1" * 40
            about = {"commitUrl": f"{self.hub.address}/{found[1]}/commit/{oid}", "commitOid": oid, "success": True}
            self.answer(200, about)
        else:
            self.answer(404)

    def do_PUT(self):
        content = self.body()
        self.hub.objects[hashlib.sha256(content).hexdigest()] = content
        self.answer(200)


@contextlib.contextmanager
def running():
    hub = Hub()
    try:
        yield hub
    finally:
        hub.close()

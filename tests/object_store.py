"""A Google Cloud Storage of this machine, in memory: what gcsfs, TensorStore and google-cloud-storage ask of the JSON API.

`python -m tests.object_store [PORT]` prints the port that it listens on, and then each request that it does not know, which it
answers with 400, because clients repeat requests that fail with 501 for minutes. It is a process of its own, so that a killed
client does not take it along.
"""

import base64
import contextlib
import dataclasses
import datetime
import hashlib
import itertools
import json
import os
import re
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlsplit

import google_crc32c

ROOT = Path(__file__).parents[1]
UNKNOWN = "The object store of the tests does not know this request."
PAGE = 1000  # objects of a listing, unless the request wants fewer
CHUNK = 256 * 1024  # bytes; the chunks of a resumable upload but the last are multiples of it
READ = {"alt", "generation", "ifGenerationMatch", "ifGenerationNotMatch"}
WRITE = {"uploadType", "name", "upload_id", "ifGenerationMatch"}
LIST = {"prefix", "delimiter", "maxResults", "pageToken", "startOffset", "endOffset"}
BUCKET = {"project", "predefinedAcl", "predefinedDefaultObjectAcl", "enableObjectRetention"}
WITHOUT_EFFECT = {"prettyPrint", "projection", "tensorstore"}  # of any request; the last is TensorStore's, against caches
OBJECT = "/storage/v1/b/([^/]+)/o/([^/]+)"
ROUTES = [  # method, path, what answers it, the parameters that it takes into account
    ("POST", "/storage/v1/b", "create_bucket", BUCKET),
    ("GET", "/storage/v1/b/([^/]+)", "get_bucket", set()),
    ("GET", "/storage/v1/b/([^/]+)/o", "list_objects", LIST),
    ("GET", f"(?:/download)?{OBJECT}", "get_object", READ),
    ("DELETE", OBJECT, "delete_object", {"generation", "ifGenerationMatch"}),
    ("POST", f"{OBJECT}/rewriteTo/b/([^/]+)/o/([^/]+)", "copy_object", set()),
    ("POST", f"{OBJECT}/moveTo/o/([^/]+)", "move_object", set()),
    ("POST|PUT", "/upload/storage/v1/b/([^/]+)/o", "upload", WRITE),
    ("DELETE", "/upload/storage/v1/b/([^/]+)/o", "cancel_upload", {"uploadType", "upload_id"}),
]


class Refusal(Exception):
    """An answer other than 200: its status and why."""

    def __init__(self, status: int, why: str = ""):
        super().__init__(why)
        self.status, self.why = status, why


@dataclasses.dataclass(frozen=True)
class Object:
    """One generation of an object."""

    bucket: str
    name: str
    content: bytes
    generation: int  # microseconds, as Google's are, and larger than that of any object before

    @property
    def resource(self) -> dict:
        """What the API says of it."""
        written = datetime.datetime.fromtimestamp(self.generation / 1e6, datetime.UTC).isoformat(timespec="milliseconds")
        return {
            "kind": "storage#object", "id": f"{self.bucket}/{self.name}/{self.generation}", "bucket": self.bucket,
            "name": self.name, "generation": str(self.generation), "metageneration": "1", "size": str(len(self.content)),
            "contentType": "application/octet-stream", "storageClass": "STANDARD", "etag": f"etag{self.generation}",
            "timeCreated": written.replace("+00:00", "Z"), "updated": written.replace("+00:00", "Z"),
            "md5Hash": base64.b64encode(hashlib.md5(self.content).digest()).decode(),
            "crc32c": base64.b64encode(google_crc32c.value(self.content).to_bytes(4, "big")).decode(),
        }  # fmt: skip


class Store:
    """Buckets of objects, and uploads that are not complete."""

    def __init__(self) -> None:
        self.buckets: dict[str, dict[str, Object]] = {}
        self.uploads: dict[str, tuple[str, dict[str, str], bytearray]] = {}  # id: bucket, parameters of its start, content
        self.lock = threading.Lock()
        self._upload_ids = itertools.count(1)
        self._generation = 0

    def bucket(self, name: str) -> dict[str, Object]:
        if name not in self.buckets:
            raise Refusal(404, f"The specified bucket does not exist: {name}")
        return self.buckets[name]

    def get(self, bucket: str, name: str, query: dict[str, str]) -> Object:
        """The object, if it meets the conditions of `query`."""
        stored = self.bucket(bucket).get(name)
        self._check(stored, query)
        if stored is None or query.get("generation", str(stored.generation)) != str(stored.generation):
            raise Refusal(404, f"No such object: {bucket}/{name}")
        return stored

    def put(self, bucket: str, name: str, content: bytes, query: dict[str, str]) -> Object:
        """Write the object at once, if the one before meets the conditions of `query`."""
        objects = self.bucket(bucket)
        self._check(objects.get(name), query)
        self._generation = max(time.time_ns() // 1000, self._generation + 1)
        objects[name] = Object(bucket, name, bytes(content), self._generation)
        return objects[name]

    def start_upload(self, bucket: str, query: dict[str, str]) -> str:
        self.bucket(bucket)
        key = f"upload-{next(self._upload_ids)}"
        self.uploads[key] = (bucket, query, bytearray())
        return key

    @staticmethod
    def _check(stored: Object | None, query: dict[str, str]) -> None:
        generation = str(stored.generation) if stored else "0"
        if query.get("ifGenerationMatch", generation) != generation:
            raise Refusal(412, f"conditionNotMet: the generation is {generation}")
        if query.get("ifGenerationNotMatch") == generation:
            raise Refusal(304)


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: "Server"

    def handle_request(self) -> None:
        url = urlsplit(self.path)
        self.query = {key: values[-1] for key, values in parse_qs(url.query, keep_blank_values=True).items()}
        self.body = self._read_body()
        try:
            for methods, path, name, known in ROUTES:
                parts = re.fullmatch(path, url.path)
                if parts and re.fullmatch(methods, self.command) and self.query.keys() <= known | WITHOUT_EFFECT:
                    with self.server.store.lock:
                        answer = getattr(self, name)(*map(unquote, parts.groups()))
                    break
            else:
                raise Refusal(400, UNKNOWN)
        except Refusal as refusal:
            if refusal.why == UNKNOWN:
                print(self.command, self.path, dict(self.headers), self.body[:300], flush=True)
            error = {"error": {"code": refusal.status, "message": refusal.why, "errors": [{"message": refusal.why}]}}
            answer = refusal.status, json.dumps(error).encode(), {}
        self._send(*answer)

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = handle_request

    def _read_body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        content = b""
        while size := int(self.rfile.readline(), 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return content

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        body = b"" if status in (204, 304) else body
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if status not in (204, 304):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args) -> None:
        """Only unknown requests are printed."""

    @staticmethod
    def _json(value: dict, **headers: str):
        return 200, json.dumps(value).encode(), {"Content-Type": "application/json; charset=UTF-8", **headers}

    def create_bucket(self):
        name = json.loads(self.body)["name"]
        if name in self.server.store.buckets:
            raise Refusal(409, f"The bucket {name} exists.")
        self.server.store.buckets[name] = {}
        return self.get_bucket(name)

    def get_bucket(self, bucket: str):
        self.server.store.bucket(bucket)
        return self._json({"kind": "storage#bucket", "id": bucket, "name": bucket, "location": "US"})

    def list_objects(self, bucket: str):
        query, objects = self.query, self.server.store.bucket(bucket)
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        start, end = query.get("startOffset", ""), query.get("endOffset", "")
        entries: dict[str, Object | None] = {}  # the common part of several names is there once, without an object
        for name in sorted(objects, key=str.encode):
            if name.startswith(prefix) and name >= start and (not end or name < end):
                head, found, _ = name[len(prefix) :].partition(delimiter) if delimiter else ("", "", "")
                entries[prefix + head + found if found else name] = None if found else objects[name]
        names = [name for name in entries if name > query.get("pageToken", "")]
        page = names[: int(query.get("maxResults", PAGE))]
        listing: dict = {"kind": "storage#objects", "items": [o.resource for n in page if (o := entries[n])]}
        listing["prefixes"] = [name for name in page if entries[name] is None]
        return self._json({**listing, "nextPageToken": page[-1]} if len(page) < len(names) else listing)

    def get_object(self, bucket: str, name: str):
        stored = self.server.store.get(bucket, name, self.query)
        if self.query.get("alt", "json") == "json":
            return self._json(stored.resource)
        about, size = stored.resource, len(stored.content)
        headers = {
            "Content-Type": about["contentType"], "ETag": about["etag"], "X-Goog-Generation": about["generation"],
            "X-Goog-Metageneration": about["metageneration"], "X-Goog-Hash": f"crc32c={about['crc32c']},md5={about['md5Hash']}",
            "X-Goog-Stored-Content-Length": about["size"],
        }  # fmt: skip
        if not (wanted := self.headers.get("Range")):
            return 200, stored.content, headers
        first, last = re.fullmatch(r"bytes=(\d*)-(\d*)", wanted).groups()
        begin = int(first) if first else max(size - int(last), 0)
        stop = min(int(last) + 1, size) if first and last else size
        if begin >= stop:
            raise Refusal(416, f"{wanted} is not satisfiable, the object has {size} bytes")
        return 206, stored.content[begin:stop], {**headers, "Content-Range": f"bytes {begin}-{stop - 1}/{size}"}

    def delete_object(self, bucket: str, name: str):
        self.server.store.get(bucket, name, self.query)
        del self.server.store.bucket(bucket)[name]
        return 204, b"", {}

    def copy_object(self, bucket: str, name: str, new_bucket: str, new_name: str):
        content = self.server.store.get(bucket, name, {}).content
        new = self.server.store.put(new_bucket, new_name, content, {})
        size = str(len(content))
        return self._json({"done": True, "objectSize": size, "totalBytesRewritten": size, "resource": new.resource})

    def move_object(self, bucket: str, name: str, new_name: str):
        new = self.server.store.put(bucket, new_name, self.server.store.get(bucket, name, {}).content, {})
        del self.server.store.bucket(bucket)[name]
        return self._json(new.resource)

    def upload(self, bucket: str):
        store, query = self.server.store, self.query
        if "upload_id" in query:
            return self._continue_upload(query["upload_id"])
        if query["uploadType"] == "media":
            return self._json(store.put(bucket, query["name"], self.body, query).resource)
        if query["uploadType"] == "multipart":
            about, content = self._multipart()
            return self._json(store.put(bucket, query.get("name") or about["name"], content, query).resource)
        if query["uploadType"] != "resumable":
            raise Refusal(400, UNKNOWN)
        query.setdefault("name", json.loads(self.body or "{}").get("name"))
        key = store.start_upload(bucket, query)
        place = f"http://{self.headers['Host']}/upload/storage/v1/b/{quote(bucket)}/o?uploadType=resumable&upload_id={key}"
        return 200, b"", {"Location": place}

    def _continue_upload(self, key: str):
        store = self.server.store
        if key not in store.uploads:
            raise Refusal(404, f"no such upload: {key}")
        bucket, query, content = store.uploads[key]
        first, total = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", self.headers["Content-Range"]).groups()
        if first is not None and int(first) != len(content):
            raise Refusal(503, f"the upload has {len(content)} bytes, the chunk starts at {first}")
        if total == "*" and len(self.body) % CHUNK:
            raise Refusal(400, f"invalid: a chunk of {len(self.body)} bytes is not a multiple of {CHUNK}")
        content += self.body
        if total == str(len(content)):
            del store.uploads[key]
            return self._json(store.put(bucket, query["name"], content, query).resource)
        return 308, b"", {"Range": f"bytes=0-{len(content) - 1}"} if content else {}

    def cancel_upload(self, _bucket: str):
        self.server.store.uploads.pop(self.query["upload_id"], None)
        return 499, b"", {}

    def _multipart(self) -> tuple[dict, bytes]:
        """The two parts of a body: what the object is, in JSON, and its content."""
        boundary = re.search(r'boundary="?([^";]+)', self.headers["Content-Type"])[1].encode()
        about, content = (
            re.fullmatch(rb"\r?\n(?:.+?\r?\n)*?\r?\n(.*)\r?\n", part, re.DOTALL)[1]
            for part in self.body.split(b"--" + boundary)[1:3]
        )
        return json.loads(about), content


class Server(ThreadingHTTPServer):
    """The store behind a port of this machine; 0 chooses a free one."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int):
        super().__init__(("127.0.0.1", port), Handler)
        self.store = Store()

    def handle_error(self, request, client_address) -> None:
        """A client that is killed, or closes a connection that it does not need, is no error."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


@dataclasses.dataclass(frozen=True)
class Running:
    """A store in a process of its own."""

    url: str
    printed: Path  # the port and the requests that the store did not know

    @property
    def environment(self) -> dict[str, str]:
        """What points the libraries of a process to this store, and keeps them from looking for credentials."""
        return {
            "STORAGE_EMULATOR_HOST": self.url,  # gcsfs, google-cloud-storage
            "TENSORSTORE_GCS_HTTP_URL": self.url,
            "GOOGLE_AUTH_TOKEN_FOR_TESTING": "none",  # TensorStore
            "GOOGLE_APPLICATION_CREDENTIALS": os.devnull,  # gcsfs fails to read it at once and is then anonymous
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",  # it asks for the kind of bucket through gRPC
        }

    def make_bucket(self, name: str) -> None:
        body = json.dumps({"name": name}).encode()
        urllib.request.urlopen(urllib.request.Request(f"{self.url}/storage/v1/b", data=body)).close()

    def unknown_requests(self) -> list[str]:
        return self.printed.read_text().splitlines()[1:]


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Running]:
    """Start a store, whose output goes into `folder`; stop it at the end."""
    printed = folder / "object_store.log"
    with open(printed, "w") as file:
        process = subprocess.Popen([sys.executable, "-m", "tests.object_store"], cwd=ROOT, stdout=file, stderr=file)
    try:
        while not printed.read_text().endswith("\n"):
            assert process.poll() is None, "the object store did not start"
            time.sleep(0.01)
        yield Running(f"http://127.0.0.1:{int(printed.read_text())}", printed)
    finally:
        process.terminate()
        process.wait()


def main() -> None:
    server = Server(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()

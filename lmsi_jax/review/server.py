"""The web page of a review, on this machine alone.

A browser gets the page without any data. The data are behind a token, one for each reviewer, that the page sends in a header:
another site can neither send it nor read a reply. Texts of models reach the page as JSON and are shown as text.
"""

import functools
import hmac
import json
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import flask
import waitress
from werkzeug.exceptions import HTTPException

from lmsi_jax.core.errors import UserError
from lmsi_jax.core.progress import console
from lmsi_jax.core.records import fingerprint
from lmsi_jax.review.desk import Desk
from lmsi_jax.review.items import path_payload

HOST = "127.0.0.1"
FILES = {"/": ("page.html", "text/html"), "/page.js": ("page.js", "text/javascript"), "/page.css": ("page.css", "text/css")}
MOST_BYTES = 100_000  # of a request
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


def application(desk: Desk, tokens: Mapping[str, str], port: int) -> flask.Flask:
    """Return the web application. `tokens` are by reviewer, and `port` is the one that it is served on."""
    app = flask.Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MOST_BYTES
    hosts = {f"{name}:{port}" for name in (HOST, "localhost")}

    @app.before_request
    def check() -> None:
        """Refuse requests that another site makes a browser send, and those for data without a token."""
        request = flask.request
        if request.host not in hosts or request.headers.get("Origin", f"http://{request.host}") != f"http://{request.host}":
            flask.abort(403, "This page is served on this machine alone.")
        if request.path.startswith("/api/"):
            flask.g.reviewer = _reviewer(request.headers.get("Authorization", ""), tokens)

    @app.after_request
    def protect(response: flask.Response) -> flask.Response:
        response.headers.update(HEADERS)
        return response

    @app.errorhandler(HTTPException)
    def refuse(error: HTTPException) -> tuple[dict[str, str], int]:
        return {"error": error.description or error.name}, error.code or 500

    @app.errorhandler(UserError)
    def explain(error: UserError) -> tuple[dict[str, str], int]:
        return {"error": str(error)}, 400

    for address, (name, kind) in FILES.items():
        app.add_url_rule(address, name, functools.partial(_file, name, f"{kind}; charset=utf-8"))

    @app.post("/api/next")
    def next_item() -> Any:
        tab = str(_sent().get("tab", ""))[:64]
        reviewer = flask.g.reviewer
        item = desk.next(reviewer, tab)
        return {"item": item.payload() if item else None, "progress": desk.progress(reviewer), "reviewer": reviewer}

    @app.post("/api/review")
    def review() -> Any:
        desk.submit(flask.g.reviewer, _sent())
        return {"progress": desk.progress(flask.g.reviewer)}

    @app.post("/api/path")
    def whole_path() -> Any:
        sent = _sent()
        paths = {path["path"]: path for path in desk.item(str(sent.get("id"))).paths}
        if type(sent.get("path")) is not int or sent["path"] not in paths:
            raise UserError(f"Path {sent.get('path')!r:.80} of '{sent.get('id')!s:.80}' is not shown in this review.")
        return path_payload(paths[sent["path"]])

    return app


def _file(name: str, content_type: str) -> flask.Response:
    return flask.Response((Path(__file__).parent / name).read_bytes(), content_type=content_type)


def _sent() -> Mapping[str, Any]:
    sent = flask.request.get_json(silent=True)
    if not isinstance(sent, dict):
        flask.abort(400, "The request must be a JSON object.")
    return sent


def _reviewer(authorization: str, tokens: Mapping[str, str]) -> str:
    """Return the reviewer whose token a request has, and refuse it without one."""
    sent = authorization.removeprefix("Bearer ").encode("utf-8", "replace")
    found = [name for name, token in tokens.items() if hmac.compare_digest(sent, token.encode())]
    if not found:
        flask.abort(401, "The address lacks a valid token. Open the one that `lmsi review` printed.")
    return found[0]


def serve(desk: Desk, reviewers: Sequence[str], port: int, about: str) -> None:
    """Serve a review until the process is stopped. `about` identifies the review: it keeps its tokens when started again.

    `port` 0 is any free port. Raises UserError when the port is taken.
    """
    tokens = _tokens(about, reviewers)
    proxy = _Late()
    try:
        options = {"threads": 4, "ident": None, "max_request_body_size": MOST_BYTES}
        server = waitress.create_server(proxy, host=HOST, port=port, **options)
    except OSError as error:
        raise UserError(f"Port {port} of {HOST} cannot be used ({error.strerror}); choose another one with --port.") from error
    proxy.application = application(desk, tokens, server.effective_port)
    for name in reviewers:
        console.print(f"{name}: http://{HOST}:{server.effective_port}/#{tokens[name]}", soft_wrap=True)
    console.print("Each reviewer opens his or her own address. Stop with Ctrl-C; every verdict is kept.")
    server.run()


class _Late:
    """An application that is set when the port of its server is known."""

    application: flask.Flask

    def __call__(self, environ: Any, start_response: Any) -> Any:
        return self.application(environ, start_response)


def _tokens(about: str, reviewers: Sequence[str]) -> dict[str, str]:
    """Return a random token for each reviewer, which stays the same so that an open page goes on after a restart.

    They are kept outside the run, in a file that only its owner can read.
    """
    folder = Path(os.path.expanduser("~/.cache/lmsi_jax/review"))
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    file = folder / f"{fingerprint(about)}.json"
    try:
        tokens = json.loads(file.read_text()) if file.exists() else {}
    except ValueError:
        tokens = {}
    tokens |= {name: secrets.token_urlsafe(24) for name in reviewers if name not in tokens}
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as stream:
        json.dump(tokens, stream)
    return {name: tokens[name] for name in reviewers}

"""The page's server: what another site, a stranger or a model's text might try."""

import json
import re

import pytest
from etils import epath
from hypothesis import given, settings
from hypothesis import strategies as st

from lmsi_jax.core.errors import UserError
from lmsi_jax.review import server
from lmsi_jax.review.desk import Desk
from lmsi_jax.review.items import LONGEST, read_items
from lmsi_jax.review.log import Log
from lmsi_jax.trust.reviews import Reviews
from tests.review.run import GROUP, make_run

PORT, HOST = 8717, "127.0.0.1:8717"
SCRIPT = "<script>alert(1)</script><img src=x onerror=alert(2)> 3 + 4 = 7. The answer is 7."


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    where = tmp_path_factory.mktemp("run")
    long = "\U0001f600 1 + 1 = 2. " * 1500 + ("\U0001f600" * 50_000 + ". ") * 50 + SCRIPT  # 10 MB as UTF-8
    folder = make_run(where, questions=6, extra=long)
    logs = [Log(epath.Path(where / f"{name}.jsonl")) for name in ("reviews", "rankings")]
    desk = Desk(read_items(folder, GROUP, 0), *logs, ("ann", "bob"), 0)
    return server.application(desk, {"ann": "token-of-ann", "bob": "token-of-bob"}, PORT).test_client()


def call(client, address, body=None, token="token-of-ann", host=HOST, **headers):
    headers = {"Host": host, **headers} | ({"Authorization": f"Bearer {token}"} if token else {})
    return client.post(address, data=json.dumps(body or {}), content_type="application/json", headers=headers)


def test_data_need_a_token(client):
    """Catches: an address that answers without a token, a token of one reviewer that acts for another."""
    for address in ("/api/next", "/api/review", "/api/path"):
        for token in (None, "", "token-of-an", "token-of-ann2", "\u00e9"):
            reply = call(client, address, {"id": "q000", "tab": "t"}, token=token)
            assert reply.status_code == 401 and "question" not in reply.text
    assert call(client, "/api/next", token="token-of-bob").json["reviewer"] == "bob"
    assert call(client, "/api/next", {"reviewer": "bob"}).json["reviewer"] == "ann"


def test_other_sites_are_refused(client):
    """Catches: a page elsewhere that makes the browser write a review, a host name that is bound to this machine."""
    for headers in ({"Origin": "https://evil.example"}, {"Origin": "null"}, {"Origin": "http://127.0.0.1:9999"}):
        assert call(client, "/api/next", **headers).status_code == 403
    for host in ("evil.example:8717", "127.0.0.1:9999", "evil.example"):
        assert call(client, "/api/next", host=host).status_code == 403
        assert client.get("/", headers={"Host": host}).status_code == 403
    assert call(client, "/api/next", Origin=f"http://{HOST}").status_code == 200
    assert call(client, "/api/next", host="localhost:8717").status_code == 200
    preflight = client.options("/api/next", headers={"Host": HOST, "Origin": "https://evil.example"})
    assert "Access-Control-Allow-Origin" not in preflight.headers


def test_the_page_loads_nothing_else_and_runs_nothing_else(client):
    """Catches: an inline script, a font of another host, a header that a change of the server has lost."""
    for address in ("/", "/page.js", "/page.css"):
        reply = client.get(address, headers={"Host": HOST})
        assert reply.status_code == 200
        policy = reply.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
        assert reply.headers["X-Content-Type-Options"] == "nosniff" and reply.headers["Cache-Control"] == "no-store"
        assert not re.search(r"https?://(?!127)", reply.text) and "innerHTML" not in reply.text
    page = client.get("/", headers={"Host": HOST}).text
    assert "<style" not in page and not re.search(r"<script(?! src=)", page) and " on" not in re.sub(r">[^<]*<", "><", page)


@pytest.mark.parametrize(
    "address", ["/../setup.py", "/..%2f..%2fsetup.py", "/%2e%2e/log.py", "/page.js/../server.py", "//etc/passwd"]
)
def test_no_other_file_is_served(client, address):
    """Catches: a folder of static files that can be left by its parent."""
    reply = client.get(address, headers={"Host": HOST})
    assert reply.status_code in (404, 308) and "import" not in reply.text


def test_a_long_path_is_cut_and_asked_for(client):
    """Catches: a page that stops at 10 MB, a text that can never be read in full, a request of any size."""
    items = [call(client, "/api/next", {"tab": f"long {n}"}, token="token-of-bob").json["item"] for n in range(6)]
    paths = {item["id"]: item["paths"] for item in items if item}
    long = [(id, path) for id, each in paths.items() for path in each if path["length"] > LONGEST]
    for id, path in long:
        assert len(path["text"]) == LONGEST
        whole = call(client, "/api/path", {"id": id, "path": path["path"]}).json
        assert len(whole["text"]) == path["length"] and whole["text"].endswith(SCRIPT)
        assert 500 < len(path["steps"]) < len(whole["steps"]) and len(whole["text"].encode()) > 10_000_000
        start, end = whole["steps"][1400]
        units = whole["text"].encode("utf-16-le")[2 * start : 2 * end].decode("utf-16-le")
        assert units.strip() == "\U0001f600 1 + 1 = 2."
    assert long, "the seed shows path 0 of the first question"
    assert call(client, "/api/path", {"id": "q000", "path": "x"}).status_code == 400
    assert call(client, "/api/review", {"key": "x" * 200_000}).status_code == 413
    assert call(client, "/api/review", ["x"]).status_code == 400


def test_the_server_reads_no_large_request(monkeypatch, tmp_path):
    """Catches: a page of another site that fills the memory, since a body is read before anything is checked."""
    given = {}

    def create(app, **options):
        given.update(options)
        raise OSError(98, "Address already in use")

    monkeypatch.setattr(server.waitress, "create_server", create)
    monkeypatch.setattr(server, "_tokens", lambda about, names: dict.fromkeys(names, "t"))
    logs = [Log(epath.Path(tmp_path / f"{name}.jsonl")) for name in ("reviews", "rankings")]
    with pytest.raises(UserError, match="choose another one with --port"):
        server.serve(Desk([], *logs, ["ann"], 0), ["ann"], 1, "")
    assert given["max_request_body_size"] == server.MOST_BYTES and given["host"] == "127.0.0.1"


def test_a_refused_review_says_why(client):
    """Catches: an error page with a trace in place of words."""
    reply = call(client, "/api/review", {"id": "q000", "key": "k", "seen": "?", "verdict": "right"})
    assert reply.status_code == 400 and "has changed since it was shown" in reply.json["error"]
    assert call(client, "/api/nothing").status_code == 404


def test_tokens_stay_and_are_private(tmp_path, monkeypatch):
    """Catches: a restart that locks out an open page, a token that others on the machine can read."""
    monkeypatch.setenv("HOME", str(tmp_path))
    first = server._tokens("run", ["ann"])
    both = server._tokens("run", ["ann", "bob"])
    assert both["ann"] == first["ann"] != both["bob"] and server._tokens("other", ["ann"]) != first
    files = list((tmp_path / ".cache/lmsi_jax/review").iterdir())
    assert len(files) == 2 and all(file.stat().st_mode & 0o077 == 0 for file in files)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
FIELDS = ("id", "key", "seen", "verdict", "paths", "ranks", "seconds", "tab", "path", "first_wrong_step")


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(["next", "review", "path"]), st.dictionaries(st.sampled_from(FIELDS), anything, max_size=8) | anything)
def test_any_request_is_answered_or_refused(client, address, body):
    """Catches: a request that ends in a trace, or is kept although it is no review."""
    if isinstance(body, dict):
        body = {**{"id": "q001", "key": "k"}, **body}
    reply = call(client, f"/api/{address}", body)
    assert reply.status_code in (200, 400) and (reply.status_code == 200) == ("error" not in reply.json)
    if address == "review":
        assert reply.status_code == 400


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.dictionaries(st.sampled_from(["id", "reviewer", "answer", "path", "text_hash", "verdict"]), anything), max_size=4
    )
)
def test_any_reviews_are_read_or_refused(rows):
    """Catches: a file of reviews from elsewhere that ends in a trace."""
    try:
        reviews = Reviews.of(rows)
    except UserError:
        return
    assert all(reviews.of_label(*name) in ("right", "wrong", None) for name in reviews.labels)

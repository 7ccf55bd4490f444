"""Who reviews what, and that nothing is lost or kept twice."""

import json
import os
import signal
import subprocess
import sys

import pytest
from etils import epath

from lmsi_jax.analysis.reviews import audit
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.records import read_growing, read_jsonl
from lmsi_jax.review.desk import Desk
from lmsi_jax.review.items import group_to_review, read_items
from lmsi_jax.review.log import Log
from lmsi_jax.trust.reviews import Reviews, is_doubled
from tests.review.run import GROUP, make_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("run"))


def desk_of(folder, where, reviewers=("ann",)):
    logs = [Log(epath.Path(where / f"{name}.jsonl")) for name in ("reviews", "rankings")]
    return Desk(read_items(folder, GROUP, 0), *logs, reviewers, 0), logs


def sent(item, key, verdict="right", **more):
    return {"key": key, "id": item.id, "seen": item.seen, "verdict": verdict, "seconds": 2.5, **more}


def test_an_item_has_no_gold_and_both_kinds_of_paths(folder):
    """Catches: a gold answer that a reviewer could read, paths that all agree, a mark that is not where the step is."""
    items = read_items(folder, GROUP, 0)
    assert len(items) == 40 and items == read_items(folder, GROUP, 0)
    assert [item.id for item in read_items(folder, GROUP, 1)] != [item.id for item in items], "another seed, another order"
    split = next(item for item in items if len(item.counts) > 1)
    assert {path["agrees"] for path in split.paths} == {True, False}
    payload = json.dumps([item.payload() for item in items])
    assert "gold" not in payload and "confidence" not in payload
    for path in split.paths:
        assert all(0 <= start < end <= len(path["text"]) for start, end in path["steps"])
    with pytest.raises(UserError, match="--above=0.7 must be one of 0, 0.25, 0.5"):
        read_items(folder, GROUP, 0, above=0.7)
    above = [item.id for item in read_items(folder, GROUP, 0, above=0.5)]
    assert above == [item.id for item in items if item.share > 0.5], "the same order, so that the certificate holds"
    assert group_to_review(folder, "") == GROUP
    with pytest.raises(UserError, match="--group=rounds/9 has no votes"):
        group_to_review(folder, "rounds/9")


def test_items_are_shared_among_reviewers_and_some_are_doubled(folder, tmp_path):
    """Catches: an item that two get by accident or nobody gets, and one that a second tab of the same reviewer shows too."""
    desk, (reviews, _) = desk_of(folder, tmp_path, ("ann", "bob"))
    first, second = desk.next("ann", "tab 1"), desk.next("ann", "tab 2")
    assert first.id != second.id and desk.next("ann", "tab 1").id == first.id
    other = desk.next("bob", "tab 3")
    assert other.id not in (first.id, second.id) or is_doubled(other.id, 0)
    for turn in range(200):
        for name, tab in (("ann", "tab 1"), ("bob", "tab 3"), ("ann", "tab 2")):
            item = desk.next(name, tab)
            if item:
                desk.submit(name, sent(item, f"{name} {tab} {turn}"))
    rows = reviews.rows()
    given = {id: sorted(row["reviewer"] for row in rows if row["id"] == id) for id in {row["id"] for row in rows}}
    assert len(given) == 40
    for id, names in given.items():
        assert names == ["ann", "bob"] if is_doubled(id, 0) else len(names) == 1
    assert any(is_doubled(id, 0) for id in given)
    assert desk.progress("ann")["all"] == desk.progress("ann")["items"] == 40


def test_a_submission_is_kept_once_and_checked(folder, tmp_path):
    """Catches: a verdict that is counted twice when its reply was lost; one on a path that was not shown."""
    desk, (reviews, rankings) = desk_of(folder, tmp_path)
    item = desk.next("ann", "")
    number = item.paths[0]["path"]
    paths = [{"path": number, "verdict": "wrong", "first_wrong_step": 0}]
    ranks = {str(path["path"]): rank for rank, path in enumerate(item.paths, start=1)}
    for _ in range(2):
        desk.submit("ann", sent(item, "k", "wrong", paths=paths, ranks=ranks))
    label, path = reviews.rows()
    assert (label["path"], label["answer"], label["verdict"], label["reviewer"]) == (None, item.answer, "wrong", "ann")
    assert (path["path"], path["verdict"], path["first_wrong_step"]) == (number, "wrong", 0)
    assert label["seen"] == item.seen and label["seconds"] == 2.5
    (ranking,) = rankings.rows()
    assert sorted(ranking["ranks"]) == list(range(1, len(item.paths) + 1)) and len(ranking["answers"]) == len(item.paths)
    again, _ = desk_of(folder, tmp_path)
    again.submit("ann", sent(item, "k", "wrong", paths=paths, ranks=ranks))
    assert len(reviews.rows()) == 2 and len(rankings.rows()) == 1, "also after a restart"
    other = again.next("ann", "")
    assert other.id != item.id
    for bad, words in (
        ({"verdict": "maybe"}, "not one of right, wrong, unclear"), ({"seen": "x"}, "has changed"),
        ({"id": "nobody"}, "no item"),
        ({"paths": [{"path": 99, "verdict": "right"}]}, "no verdict on a path"), ({"paths": "x"}, "must be a list"),
        ({"paths": [{"path": other.paths[0]["path"], "verdict": "wrong", "first_wrong_step": 10**6}]}, "no verdict on a path"),
        ({"ranks": {"99": 1, "98": 2}}, "must be ranks"), ({"key": ""}, "needs the text `key`"),
        ({"ranks": []}, "must be ranks"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=words):
            again.submit("ann", {**sent(other, "bad"), **bad})
    assert len(reviews.rows()) == 2
    taken_back = [{"path": number, "verdict": "unclear", "first_wrong_step": None}]
    again.submit("ann", sent(item, "k2", "right", paths=taken_back, ranks={}))
    verdicts = Reviews.of(reviews.rows())
    assert verdicts.of_label(item.id, item.answer) == "right" and verdicts.of_path(item.id, path["text_hash"]) is None
    assert rankings.rows()[-1]["ranks"] == [] and len(rankings.rows()) == 2
    assert again.progress("ann")["own"] == 1 and audit(folder, GROUP) is None, "these reviews are in another folder"


def test_an_unfinished_line_is_cut(tmp_path):
    """Catches: a file that a kill in the middle of a write has spoilt for good."""
    file = epath.Path(tmp_path / "reviews.jsonl")
    Log(file).append([{"id": "a"}, {"id": "b"}])
    with open(file, "ab") as stream:
        stream.write(b'{"id": "c", "verd')
    log = Log(file)
    log.append([{"id": "d"}])
    assert [row["id"] for row in log.rows()] == ["a", "b", "d"]
    with open(file, "ab") as stream:
        stream.write(b'{"id": "e"}')
    assert [row["id"] for row in read_growing(file)] == ["a", "b", "d", "e"]
    log = Log(file)
    log.append([{"id": "f"}])
    assert [row["id"] for row in log.rows()] == ["a", "b", "d", "e", "f"], "a last line without its end is a line"
    with pytest.raises(UserError, match="in a bucket"):
        Log(epath.Path("gs://bucket/reviews.jsonl"))


def test_a_full_disk_leaves_the_file_whole(tmp_path):
    """Catches: half a row that the next one is appended to, so that the file can never be read again."""
    file = tmp_path / "r.jsonl"
    code = (
        "import resource, signal; from etils import epath; from lmsi_jax.review.log import Log\n"
        f"log = Log(epath.Path({str(file)!r})); log.append([{{'n': 1}}])\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (20, 10**6))\n"
        "try:\n    log.append([{'n': 2, 'text': 'x' * 50}])\nexcept OSError as error:\n    print('refused')\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10**6, 10**6)); log.append([{'n': 3}])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "refused" and [row["n"] for row in Log(epath.Path(file)).rows()] == [1, 3]


def test_what_was_confirmed_survives_a_kill(tmp_path, monkeypatch):
    """Catches: a row that is confirmed before it was written and flushed, and one that is half there."""
    flushed = []
    monkeypatch.setattr(os, "fsync", flushed.append)
    Log(epath.Path(tmp_path / "flushed.jsonl")).append([{"n": 0}])
    assert len(flushed) == 1
    code = (
        "import sys, itertools; from etils import epath; from lmsi_jax.review.log import Log\n"
        f"log = Log(epath.Path({str(tmp_path / 'r.jsonl')!r}))\n"
        "for n in itertools.count():\n    log.append([{'n': n, 'text': 'x' * 20000}]); print(n, flush=True)"
    )
    for wait in (1, 4, 9):
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        confirmed = [int(process.stdout.readline()) for _ in range(wait)]
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        rows = Log(epath.Path(tmp_path / "r.jsonl")).rows()
        assert set(confirmed) <= {row["n"] for row in rows} and all(len(row["text"]) == 20000 for row in rows)
    assert list(read_jsonl(tmp_path / "r.jsonl"))

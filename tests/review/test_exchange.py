"""Reviews in the files of other annotation tools, there and back."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmsi_jax.core.errors import UserError
from lmsi_jax.review.exchange import TOOLS, export_reviews, import_reviews
from lmsi_jax.review.items import Item

PATHS = [{"path": 3, "text": " 1 + 1\u2028 = 2.\u0085 The answer is 2.", "agrees": True, "steps": [[0, 12]], "marks": []}]
ITEMS = [Item(f"q{n}", "1 + 1?", ["2", "3"] if n else None, "2", 0.75, {"2": 3, "3": 1}, 4, PATHS) for n in range(3)]


def label(id, reviewer, verdict, key, answer="2"):
    return {
        "id": id, "path": None, "answer": answer, "verdict": verdict, "first_wrong_step": None, "reviewer": reviewer,
        "time": "2026-01-02T03:04:05+00:00", "seconds": 4.5, "seen": "abc", "key": key,
    }  # fmt: skip


ROWS = [
    label("q0", "ann", "right", "a"),
    {**label("q0", "ann", "wrong", "a"), "path": 3, "text_hash": "h", "first_wrong_step": 0},
    label("q0", "bob", "unclear", "b"),
    label("q1", "ann", "wrong", "c"),
    label("q1", "ann", "right", "d"),  # changed her mind
]
for _row in ROWS:
    if _row["path"] is not None:
        del _row["answer"]


@pytest.mark.parametrize("tool", TOOLS)
def test_nothing_is_lost_on_the_way_back(tool):
    """Catches: a field, an earlier verdict or a verdict on a path that a tool's format has no place for."""
    back = import_reviews(tool, export_reviews(tool, ITEMS, ROWS), "file")
    assert sorted(map(json.dumps, back)) == sorted(map(json.dumps, ROWS))
    assert import_reviews(tool, export_reviews(tool, ITEMS, []), "file") == []


def test_a_verdict_that_was_given_in_label_studio_is_new():
    """Catches: a changed verdict that is taken for the old one, a reviewer without a name, a cancelled annotation."""
    tasks = json.loads(export_reviews("label_studio", ITEMS, ROWS))
    assert tasks[0]["data"]["question"] == "1 + 1?" and "(A) 2" in tasks[1]["data"]["question"]
    result = {"from_name": "verdict", "to_name": "question", "type": "choices", "value": {"choices": ["wrong"]}}
    about = {"created_at": "2026-05-06T07:08:09.123Z", "lead_time": 3.25, "was_cancelled": False}
    tasks[2]["annotations"] = [
        {"id": 1, "completed_by": 7, "result": [result], **about},
        {"id": 2, "completed_by": {"id": 8, "email": "bob@example.org"}, "result": [result], **about, "was_cancelled": True},
    ]
    tasks[0]["annotations"][0]["result"][0]["value"]["choices"] = ["wrong"]
    new = [row for row in import_reviews("label_studio", json.dumps(tasks), "file") if row not in ROWS]
    assert [(row["id"], row["reviewer"], row["verdict"], row["seconds"]) for row in new] == [
        ("q0", "ann", "wrong", 4.5),
        ("q2", "7", "wrong", 3.25),
    ]


def test_verdicts_of_prodigy_argilla_and_inspect():
    """Catches: accept, reject and ignore confused; a draft that counts; an edited score that is not noticed."""
    lines = [json.loads(line) for line in export_reviews("prodigy", ITEMS, ROWS).strip().split("\n")]
    assert [line.get("answer") for line in lines] == ["accept", "ignore", "accept", None]
    lines[-1] |= {"answer": "reject", "_annotator_id": "set-carl", "_timestamp": 1767225600}
    (new,) = [row for row in import_reviews("prodigy", "\n".join(map(json.dumps, lines)), "file") if row not in ROWS]
    assert (new["id"], new["verdict"], new["reviewer"], new["time"]) == ("q2", "wrong", "set-carl", "2026-01-01T00:00:00+00:00")
    records = json.loads(export_reviews("argilla", ITEMS, ROWS))
    records[2]["responses"] = {
        "verdict": [
            {"value": "right", "user_id": "u1", "status": "submitted"},
            {"value": "wrong", "user_id": "u2", "status": "draft"},
        ]
    }
    (new,) = [row for row in import_reviews("argilla", json.dumps(records), "file") if row not in ROWS]
    assert (new["id"], new["verdict"], new["reviewer"]) == ("q2", "right", "u1")
    scores = [json.loads(line) for line in export_reviews("inspect", ITEMS, ROWS).strip().split("\n")]
    assert [(score["id"], score["value"]) for score in scores] == [("q0", "C"), ("q1", "C")]
    scores[1]["value"] = "I"
    (new,) = [row for row in import_reviews("inspect", "\n".join(map(json.dumps, scores)), "file") if row not in ROWS]
    assert (new["id"], new["verdict"], new["reviewer"]) == ("q1", "wrong", "inspect")


def test_a_verdict_that_changes_back_is_new():
    """Catches: the third import of a reviewer who went from right to wrong and back, taken for the first."""
    tasks, known = json.loads(export_reviews("argilla", ITEMS, [])), []
    for verdict in ("right", "wrong", "right", "right"):
        tasks[0]["responses"]["verdict"] = [{"value": verdict, "user_id": "u1", "status": "submitted"}]
        known += import_reviews("argilla", json.dumps(tasks), "file", known)
    assert [row["verdict"] for row in known] == ["right", "wrong", "right"]


def test_files_of_another_kind_are_refused():
    """Catches: a trace in place of the record that cannot be read."""
    with pytest.raises(UserError, match="neither a JSON list nor JSON Lines"):
        import_reviews("prodigy", "{", "file")
    with pytest.raises(UserError, match="record 1 is not of label_studio's format"):
        import_reviews("label_studio", "[1]", "file")
    with pytest.raises(UserError, match="record 1 is not of label_studio's format"):
        import_reviews("label_studio", '[{"data": {}, "annotations": [{"result": [{"from_name": "verdict"}]}]}]', "file")
    with pytest.raises(UserError, match="maybe"):
        import_reviews("inspect", '{"id": "q0", "value": "maybe", "answer": "2"}', "file")
    with pytest.raises(UserError, match="no tool 'excel'"):
        import_reviews("excel", "", "file")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["data", "meta", "metadata", "annotations", "result", "id", "value", "answer", "lmsi_reviews", "fields"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(TOOLS)), st.lists(json_values, max_size=3))
def test_any_file_is_read_or_refused(tool, records):
    """Catches: a file from outside that ends in a trace."""
    try:
        rows = import_reviews(tool, json.dumps(records), "file")
    except UserError:
        return
    assert isinstance(rows, list)

"""Samples of other engines, however odd: rows, or an error that names file and row."""

import json

import pytest
from etils import epath
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lmsi_jax.core.errors import UserError
from lmsi_jax.stages.external_samples import paths

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["stop", "length", 200, 500, 10**400, "The answer is 7."]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


def fields(**known):
    """An object of which every field may be right, missing, or of any other value."""
    return st.fixed_dictionaries({}, optional={name: right | VALUES for name, right in known.items()}) | VALUES


TOKEN = fields(token=st.text(max_size=3), logprob=st.floats(max_value=0))
CHOICE = fields(
    message=fields(content=st.text(max_size=9)),
    text=st.text(max_size=9),
    finish_reason=st.sampled_from(["stop", "length", None]),
    logprobs=fields(content=st.lists(TOKEN, max_size=3)),
)
ROW = {
    "custom_id": st.text(max_size=3),
    "error": st.none(),
    "response": fields(status_code=st.just(200), body=fields(choices=st.lists(CHOICE, max_size=3))),
    "doc_id": st.integers(0, 9),
    "resps": st.lists(st.lists(st.text(max_size=9), max_size=2), max_size=2),
    "filter": st.sampled_from(["strict", "flexible"]),
}
ROWS = st.one_of(
    *(
        st.fixed_dictionaries(
            {name: ROW[name] | VALUES for name in needed}, optional={name: ROW[name] | VALUES for name in ROW.keys() - needed}
        )
        for needed in ({"custom_id", "response"}, {"doc_id", "resps"}, set())
    )
)


@settings(max_examples=2000, deadline=None, suppress_health_check=list(HealthCheck))
@given(row=ROWS)
def test_any_json_gives_paths_or_an_error_that_names_the_row(tmp_path_factory, row):
    """Catches: a traceback, or a row that vanishes, for values of other types than a format says."""
    file = epath.Path(tmp_path_factory.getbasetemp() / "foreign.jsonl")
    file.write_bytes(json.dumps(row).encode())
    try:
        found = list(paths(file))
    except UserError as error:
        assert f"{file} row 1: " in str(error)
        return
    assert found
    for number, path in enumerate(found):
        assert path["id"] and path["path"] == number and isinstance(path["text"], str) and path["finish"] in ("stop", "length")
        assert "logprob" not in path or abs(path["logprob"]) < float("inf")


def batch(**choice):
    return {"custom_id": "q", "response": {"status_code": 200, "body": {"choices": [choice]}}, "error": None}


@pytest.mark.parametrize("token", [None, "x", {}, {"logprob": None}, {"logprob": float("nan")}, {"logprob": True}])
def test_log_probabilities_that_are_no_numbers_are_left_out(token, tmp_path):
    """Catches: a traceback for a null, or a sum that is NaN; without a sum weighted votes say what they lack."""
    tokens = [{"logprob": -0.5}, token]
    row = batch(text="7", logprobs={"content": tokens})
    (tmp_path / "in.jsonl").write_text(json.dumps(row))
    assert list(paths(epath.Path(tmp_path / "in.jsonl"))) == [{"id": "q", "path": 0, "text": "7", "finish": "stop"}]
    row = batch(text="7", logprobs={"content": tokens[:1] * 2})
    (tmp_path / "in.jsonl").write_text(json.dumps(row))
    found = list(paths(epath.Path(tmp_path / "in.jsonl")))
    assert (found[0]["num_tokens"], found[0]["logprob"]) == (2, -1.0)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (batch(finish_reason="stop"), "row 1: the answer to request 'q' has neither `message` nor `text`"),
        ({**batch(text="7"), "custom_id": None}, "row 1: `custom_id` is None, not a name"),
        ({"doc_id": [], "resps": ["7"]}, r"row 1: `doc_id` is \[\], not a name"),
        ({"doc_id": 1, "resps": [[]]}, "row 1: document 1 has no samples"),
        ({"doc_id": 1, "resps": ["7"], "filter": float("nan")}, "row 1: `filter` is nan, not a name"),
    ],
)
def test_rows_that_would_become_empty_or_vanish(row, said, tmp_path):
    """Catches: an answer that is not there as an empty path, an id that is `None`, a document that is dropped."""
    (tmp_path / "in.jsonl").write_text(json.dumps(row))
    with pytest.raises(UserError, match=said):
        list(paths(epath.Path(tmp_path / "in.jsonl")))

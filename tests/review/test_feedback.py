"""Verdicts that people give change the training rows that they name, and no others."""

import json

import pytest
from etils import epath

from lmsi_jax.analysis.reviews import audit, audit_rows
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.records import fingerprint, read_jsonl, write_jsonl
from lmsi_jax.core.settings import build, traced
from lmsi_jax.formatting.config import FormatConfig
from lmsi_jax.formatting.prompts import Prompts
from lmsi_jax.pipeline.run_folder import RunFolder
from lmsi_jax.recipes import self_improve
from lmsi_jax.recipes.config import Config
from lmsi_jax.stages.format import FormatSettings, run_format
from lmsi_jax.voting.config import SelectConfig
from tests.review.run import GROUP, READER, make_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("run"))


def examples(folder, tmp_path, reviews, **select):
    """The training rows by question, with these reviews."""
    inputs = {"questions": folder.questions, "paths": folder.paths(GROUP), "votes": folder.votes(GROUP)}
    if reviews is not None:
        write_jsonl(tmp_path / "reviews.jsonl", reviews)
        inputs["reviews"] = epath.Path(tmp_path / "reviews.jsonl")
    output = epath.Path(tmp_path / "examples.jsonl")
    settings = FormatSettings(0, READER, Prompts("", ""), SelectConfig(**select), FormatConfig())
    run_format(None, settings, inputs, {"examples": output})
    rows = {}
    for row in read_jsonl(output):
        rows.setdefault(row["id"], []).append(json.dumps(row))
    return rows


def review(id, answer, verdict, reviewer="ann", **more):
    return {
        "id": id,
        "path": None,
        "answer": answer,
        "verdict": verdict,
        "reviewer": reviewer,
        "key": f"{id} {reviewer}",
        **more,
    }


def changed(before, after):
    return {id for id in before.keys() | after.keys() if before.get(id) != after.get(id)}


def test_a_verdict_changes_what_it_names(folder, tmp_path):
    """Catches: a verdict on another answer of the question, a doubtful one that counts, rows of other questions that move."""
    votes = {row["id"]: row for row in read_jsonl(folder.votes(GROUP))}
    before = examples(folder, tmp_path, None)
    assert examples(folder, tmp_path, []) == before
    wrong = examples(folder, tmp_path, [review("q003", votes["q003"]["answer"], "wrong")])
    assert changed(before, wrong) == {"q003"} and "q003" not in wrong
    for verdict, answer in (("unclear", votes["q003"]["answer"]), ("right", votes["q003"]["answer"]), ("wrong", "another")):
        assert examples(folder, tmp_path, [review("q003", answer, verdict)]) == before
    split = [review("q003", votes["q003"]["answer"], "wrong"), review("q003", votes["q003"]["answer"], "right", "bob")]
    assert examples(folder, tmp_path, split) == before, "two reviewers who disagree settle nothing"
    changed_mind = [review("q003", votes["q003"]["answer"], "wrong"), review("q003", votes["q003"]["answer"], "right")]
    assert examples(folder, tmp_path, changed_mind) == before


def test_a_label_that_people_confirm_needs_no_vote_share(folder, tmp_path):
    """Catches: a confirmed label that a threshold of the vote share still drops."""
    votes = {row["id"]: row for row in read_jsonl(folder.votes(GROUP))}
    before = examples(folder, tmp_path, None, min_confidence=0.9)
    low = next(id for id in votes if id not in before and votes[id]["answer"] is not None)
    after = examples(folder, tmp_path, [review(low, votes[low]["answer"], "right")], min_confidence=0.9)
    assert changed(before, after) == {low} and len(after[low]) == 4 * len(votes[low]["kept"])


def test_a_path_that_people_call_wrong_is_left_out(folder, tmp_path):
    """Catches: a verdict on a path that drops its question, or stays without effect."""
    votes = {row["id"]: row for row in read_jsonl(folder.votes(GROUP))}
    id = next(id for id in votes if len(votes[id]["kept"]) > 2)
    texts = {row["path"]: row["text"] for row in read_jsonl(folder.paths(GROUP)) if row["id"] == id}
    path = votes[id]["kept"][1]
    row = review(id, None, "wrong", text_hash=fingerprint(texts[path])) | {"path": path, "first_wrong_step": 0}
    before, after = examples(folder, tmp_path, None), examples(folder, tmp_path, [row])
    assert changed(before, after) == {id}
    assert [json.loads(line)["path"] for line in after[id]] == [
        number for line in before[id] if texts[number := json.loads(line)["path"]] != texts[path]
    ]


def test_a_path_that_people_call_right_is_kept(folder, tmp_path):
    """Catches: a check of steps that overrules people."""
    votes = list(read_jsonl(folder.votes(GROUP)))
    write_jsonl(
        folder.votes(GROUP), [{**vote, "valid": []} for vote in votes[:-1]] + [{**votes[-1], "valid": votes[-1]["kept"]}]
    )
    try:
        id, path = votes[3]["id"], votes[3]["kept"][0]
        text = next(row["text"] for row in read_jsonl(folder.paths(GROUP)) if (row["id"], row["path"]) == (id, path))
        row = review(id, None, "right", text_hash=fingerprint(text)) | {"path": path}
        assert changed(examples(folder, tmp_path, None, steps=True), examples(folder, tmp_path, [row], steps=True)) == {id}
    finally:
        write_jsonl(folder.votes(GROUP), votes)
    with pytest.raises(UserError, match="this control ignores the vote"):
        build(SelectConfig, {"rule": "gold", "reviews": "x"})


def test_reviews_are_an_input_of_the_stage(tmp_path):
    """Catches: rows that are not made again after a verdict, a run that goes on without the file that it names."""
    file = tmp_path / "reviews.jsonl"
    write_jsonl(file, [review("q", "5", "right")])
    config = build(Config, {"data": {"num_questions": 4, "num_eval": 4}, "select": {"reviews": str(file)}})
    made = {stage.name: stage for stage in self_improve.stages(config, RunFolder(epath.Path(tmp_path / "run")))}
    assert made["rounds/1/format"].inputs["reviews"] == epath.Path(file) and "reviews" not in made["rounds/1/vote"].inputs
    assert "reviews" not in traced(made["rounds/1/format"].settings)["select"], "its content counts, not its name"
    file.unlink()
    with pytest.raises(UserError, match="reviews.jsonl does not exist; `lmsi review"):
        self_improve.stages(config, RunFolder(epath.Path(tmp_path / "run")))


def test_a_new_vote_leaves_no_estimate(folder):
    """Catches: an estimate from the labels on which an old vote and a new one agree, which are more often right."""
    votes = list(read_jsonl(folder.votes(GROUP)))
    rows = [review(vote["id"], vote["answer"], "right") for vote in votes[:10]]
    try:
        write_jsonl(folder.reviews(GROUP), rows)
        assert audit(folder, GROUP).precision.reviewed == 10
        write_jsonl(folder.reviews(GROUP), [{**rows[0], "answer": "another"}, *rows[1:]])
        found = audit(folder, GROUP)
        assert found.precision is None and found.outdated == 1 and "no random sample" in audit_rows(found)[1][1]
    finally:
        folder.reviews(GROUP).unlink()


def test_a_file_of_something_else_is_refused(folder, tmp_path):
    """Catches: reviews without effect because their fields have other names."""
    with pytest.raises(UserError, match="is no review; one needs `id`, `reviewer`, `verdict`"):
        examples(folder, tmp_path, [{"id": "q003", "answer": "5", "verdict": "bad", "reviewer": "ann"}])

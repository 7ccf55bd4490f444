"""Two folders of scores; every expected number is worked out by hand."""

import subprocess
import sys

import pytest
from etils import epath
from rich.console import Console

from lmsi_jax.analysis.tables import tables
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.records import read_jsonl, write_jsonl
from lmsi_jax.evaluation.compare import compare, scores_below


def rows(task, prompting, correct, right, **more):
    """Scores of questions q0, q1, ..: "TF" is the first right and the second wrong; `right` the same for each path."""
    return [
        {
            "id": f"q{i}",
            "task": task,
            "prompting": prompting,
            "correct": c == "T",
            "right": [p == "T" for p in paths],
            "answers": ["yes" if p == "T" else "no" for p in paths],
            "confidence": max(paths.count("T"), paths.count("F")) / len(paths),
            "num_paths": len(paths),
            "unparsed": 0,
            "truncated": i,
            "extractor": 1,
            "gold": "yes",
            "prompt_hash": f"{i:016x}",
            "checkpoint": 0,
            "temperature": 0.7,
            **more,
        }
        for i, (c, paths) in enumerate(zip(correct, right, strict=True))
    ]


@pytest.fixture
def folders(tmp_path):
    """aqua (out of domain) and gsm8k (in domain), the latter with two promptings."""
    before, after = epath.Path(tmp_path / "before"), epath.Path(tmp_path / "after")
    for folder, cot, voted in ((before, "TFFF" * 5, "TF"), (after, "TTTF" * 5, "TT")):
        write_jsonl(folder / "gsm8k/cot.jsonl", rows("gsm8k", "cot", cot, list(cot)))
        write_jsonl(folder / "gsm8k/self_consistency.jsonl", rows("gsm8k", "self_consistency", voted, ["TTF", voted[1] + "FF"]))
        write_jsonl(folder / "aqua/cot.jsonl", rows("aqua", "cot", "TF", "TF"))
        write_jsonl(folder / "aqua/questions.jsonl", [{"id": "q0", "question": "?"}])
        write_jsonl(folder / "aqua/metrics/cot.jsonl", [{"step": 1}])
    return before, after


def test_gains_and_their_tests(folders):
    """Catches: sides that are swapped, a test that is not paired, Holm over one task alone."""
    found = compare(*map(scores_below, folders))
    assert [(c.task, c.prompting, c.domain, c.n, c.after.paths) for c in found] == [
        ("gsm8k", "cot", "in", 20, 1),
        ("gsm8k", "self_consistency", "in", 2, 3),
        ("aqua", "cot", "out", 2, 1),
    ]
    cot, voted, aqua = found
    assert (cot.before.accuracy.value, cot.after.accuracy.value, cot.gain) == (0.25, 0.75, 0.5)
    assert cot.p_value == pytest.approx(2 / 2**10), "ten questions changed, all for the better"
    assert cot.p_holm == pytest.approx(3 * 2 / 2**10)
    assert 0.1 < cot.gain_low < 0.5 - 1.96 * 0.5 / 20**0.5, "wider than the normal approximation, which is too short at n = 20"
    assert cot.before.truncated == 190 / 20
    assert [voted.before.pass_at[k].value for k in (1, 2)] == pytest.approx([1 / 3, 0.5])
    assert [voted.after.pass_at[k].value for k in (1, 2)] == pytest.approx([1 / 2, (1 + 2 / 3) / 2])
    assert voted.after.vote_at[1].value == pytest.approx(1 / 2, abs=0.13), "one of three paths, drawn sixteen times"
    assert voted.after.vote_at[3] == voted.after.accuracy
    assert cot.after.calibration_error == 0.25, "sure of all, right in three of four"
    assert (aqua.gain, aqua.p_value, aqua.p_holm) == (0.0, 1.0, 1.0)


def test_the_command(folders, tmp_path):
    """Catches: a table without a task; a command that needs an accelerator runtime."""
    code = "import sys; sys.modules.update(jax=None, flax=None); from lmsi_jax.cli.main import main; main(sys.argv)"
    flags = [f"--before={folders[0]}", f"--after={folders[1]}", f"--output={tmp_path}/gains.jsonl"]
    done = subprocess.run(
        [sys.executable, "-c", code, "compare", *flags], capture_output=True, text=True, check=True, env={"COLUMNS": "200"}
    )
    for said in ("In-domain", "Out-of-domain", "25.0 (11–47)", "75.0 (53–89)", "+50.0", "0.002", "0.006"):
        assert said in done.stdout, done.stdout
    assert [row["task"] for row in read_jsonl(tmp_path / "gains.jsonl")] == ["gsm8k", "gsm8k", "aqua"]


def test_what_cannot_be_compared(folders, tmp_path):
    """Catches: different questions, or one set of them twice, compared as if they were the same."""
    before, after = folders
    scores = scores_below(before)
    fewer = {("gsm8k", "cot"): rows("gsm8k", "cot", "TF", "TF")}
    with pytest.raises(UserError, match="20 questions before and 2 after, of which 2 are the same"):
        compare(scores, fewer)
    twice = {("gsm8k", "cot"): scores["gsm8k", "cot"] * 2}
    with pytest.raises(UserError, match="20 questions are scored more than once"):
        compare(twice, scores)
    with pytest.raises(UserError, match="share no task and prompting: gsm8k cot against svamp cot"):
        compare(fewer, {("svamp", "cot"): []})
    other = {key: [{**row, "extractor": 2} for row in rows] for key, rows in scores.items()}
    with pytest.raises(UserError, match="different versions of the extraction"):
        compare(scores, other)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no scores"):
        scores_below(epath.Path(tmp_path / "empty"))
    write_jsonl(tmp_path / "old/cot.jsonl", [{"id": "q0", "correct": True}])
    with pytest.raises(UserError, match="not a file of scores; a row has id, correct"):
        scores_below(epath.Path(tmp_path / "old"))


@pytest.mark.parametrize(
    ("field", "remedy"), [("gold", "question file"), ("prompt_hash", "exemplars"), ("question_hash", "question file")]
)
def test_one_id_of_two_questions_is_refused(field, remedy):
    """Catches: files whose ids are line numbers, compared as if their questions were the same."""
    before = rows("gsm8k", "cot", "TFT", "TFT", question_hash="a")
    after = [before[0], *({**row, field: "other"} for row in before[1:])]
    said = rf"gsm8k cot: under 2 of 3 ids .*'q1' has `{field}` '{before[1][field]}' before and 'other' after.*{remedy}"
    with pytest.raises(UserError, match=said):
        compare({("gsm8k", "cot"): before}, {("gsm8k", "cot"): after})
    if field == "question_hash":  # absent in files written by earlier versions
        earlier = [{name: value for name, value in row.items() if name != field} for row in before]
        assert compare({("gsm8k", "cot"): earlier}, {("gsm8k", "cot"): after})[0].n == 3


@pytest.mark.parametrize("field", ["gold", "prompt_hash", "temperature", "checkpoint"])
def test_scores_name_what_they_are_of(field, tmp_path):
    """Catches: scores without what tells whether they can be compared at all."""
    scores = [{name: value for name, value in row.items() if name != field} for row in rows("gsm8k", "cot", "TF", "TF")]
    write_jsonl(tmp_path / "cot.jsonl", scores)
    with pytest.raises(UserError, match=f"not a file of scores; .*it lacks {field}"):
        scores_below(epath.Path(tmp_path))


@pytest.mark.parametrize(("field", "first", "second"), [("temperature", 0.7, 1.2), ("checkpoint", "a", "b")])
def test_one_side_is_of_one_checkpoint_and_temperature(field, first, second):
    """Catches: a mean over two checkpoints, or two temperatures, which is the score of neither."""
    good = rows("gsm8k", "cot", "TF", "TF", **{field: first})
    mixed = [good[0], {**good[1], field: second}]
    for sides in ((good, mixed), (mixed, good)):
        with pytest.raises(UserError, match=f"gsm8k cot: the rows of one side .*`{field}` {first!r} and {second!r}"):
            compare(*({("gsm8k", "cot"): side} for side in sides))


def test_different_temperatures_are_told(capsys):
    """Catches: a gain of the temperature that looks like one of the training."""
    sides = [{("gsm8k", "cot"): rows("gsm8k", "cot", "TF", "TF", temperature=t)} for t in (0.7, 1.2)]
    found = compare(*sides)
    record = found[0].as_record()
    assert (record["before"]["temperature"], record["after"]["temperature"]) == (0.7, 1.2)
    console = Console(width=200)
    for each in tables(found):
        console.print(each)
    assert "gsm8k, CoT, greedy: temperature 0.7 before and 1.2 after" in capsys.readouterr().out
    for each in tables(compare(sides[0], sides[0])):
        console.print(each)
    assert "temperature" not in capsys.readouterr().out

"""Training rows with suggestions, and training rows that ask about solutions."""

import pytest
from etils import epath

from lmsi_jax.core.errors import UserError
from lmsi_jax.core.records import read_jsonl, write_jsonl
from lmsi_jax.formatting.config import FormatConfig
from lmsi_jax.formatting.examples import tokenize
from lmsi_jax.formatting.prompts import Prompts
from lmsi_jax.stages.format import FormatSettings, run_format
from lmsi_jax.stages.vote import VoteSettings, run_vote
from lmsi_jax.voting.config import SelectConfig, VoteConfig
from tests.review.run import GROUP, READER, make_run

HINT = "Eva says {}."


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("run"), questions=20)


def examples(folder, output, **options):
    inputs = {"questions": folder.questions, "paths": folder.paths(GROUP), "votes": folder.votes(GROUP)}
    settings = FormatSettings(0, READER, Prompts("EXAMPLES ", ""), SelectConfig(), FormatConfig(**options))
    run_format(None, settings, inputs, {"examples": epath.Path(output)})
    return list(read_jsonl(output))


def test_a_suggestion_is_wrong_by_the_vote_and_its_target_is_the_clean_path(folder, tmp_path):
    """Catches: a hint in the target, a hint that is the label, a share that is not kept, a control with other rows."""
    votes = {row["id"]: row["answer"] for row in read_jsonl(folder.votes(GROUP))}
    plain = examples(folder, tmp_path / "plain.jsonl", formats=("few_shot_cot",))
    hinted = examples(folder, tmp_path / "all.jsonl", formats=("few_shot_cot",), hints=(HINT,))
    half = examples(folder, tmp_path / "half.jsonl", formats=("few_shot_cot",), hints=(HINT,), hinted=0.5)
    assert [row["target"] for row in plain] == [row["target"] for row in hinted] == [row["target"] for row in half]
    for row, before in zip(hinted, plain, strict=True):
        start, _, suggested = row["prompt"].partition(" Eva says ")
        assert before["prompt"] == f"{start}\nA:" and suggested.removesuffix(".\nA:") != votes[row["id"]]
    assert 0.3 < sum("Eva" in row["prompt"] for row in half) / len(half) < 0.7


def test_rows_about_solutions_come_in_pairs(folder, tmp_path, capsys):
    """Catches: a yes without its no, a target that does not show the error, a solution that is wrong and called right."""
    rows = examples(folder, tmp_path / "judge.jsonl", formats=("few_shot_cot",), corruptions=("result", "answer"))
    judged = [row for row in rows if row["format"] == "judge"]
    assert len(judged) > 20 and f"{len(judged)} rows about solutions" in capsys.readouterr().out.replace("\n", " ")
    for right, wrong in zip(judged[::2], judged[1::2], strict=True):
        assert (right["id"], right["path"]) == (wrong["id"], wrong["path"])
        assert right["target"].endswith("The answer is yes.") and "wrong" not in right["target"]
        assert wrong["target"].endswith("The answer is no.") and ": wrong. The" in wrong["target"]
        assert all(row["prompt"].startswith("EXAMPLES Q: ") for row in (right, wrong))
        assert all(row["prompt"].endswith("\nIs this solution right?\nA:") for row in (right, wrong))


def test_options_without_effect_are_refused(tmp_path):
    """Catches: consistency training that is its own control, since no answer of this kind can be suggested."""
    files = {name: epath.Path(tmp_path / f"{name}.jsonl") for name in ("questions", "paths", "votes")}
    write_jsonl(files["questions"], [{"id": "q", "question": "How much?", "choices": None}])
    write_jsonl(files["paths"], [{"id": "q", "path": 0, "text": "It is half of five. The answer is 2.5."}])
    run_vote(None, VoteSettings(READER, VoteConfig()), files, {"votes": files["votes"]})
    for options, words in (({"hints": (HINT,)}, "format.hints"), ({"corruptions": ("result",)}, "format.corruptions")):
        settings = FormatSettings(0, READER, Prompts("", ""), SelectConfig(), FormatConfig(**options))
        with pytest.raises(UserError, match=f"{words}=.* changed no training row"):
            run_format(None, settings, files, {"examples": epath.Path(tmp_path / "examples.jsonl")})


def test_formats_have_the_weights_of_their_places(folder, tmp_path, tokenizer):
    """Catches: a weight of another format, a weight that the loss does not see, a row that nobody can train on."""
    formats, weights = ("few_shot_cot", "zero_shot_direct"), (1.0, 4.0)
    rows = examples(folder, tmp_path / "weighted.jsonl", formats=formats, weights=weights)
    assert {(row["format"], row["weight"]) for row in rows} == set(zip(formats, weights, strict=True))
    plain = [{key: value for key, value in row.items() if key != "weight"} for row in rows]
    for one, other, row in zip(tokenize(rows, tokenizer), tokenize(plain, tokenizer), rows, strict=True):
        assert one.weight == row["weight"] * other.weight and one.tokens == other.tokens
    for weight in (0, -1.0, float("nan"), "1", True):
        with pytest.raises(UserError, match="Training row 1 has the `weight`"):
            tokenize([{**rows[0], "weight": weight}], tokenizer)
    with pytest.raises(UserError, match="one positive number for each"):
        FormatConfig(formats=formats, weights=(1.0,)).check("format.")

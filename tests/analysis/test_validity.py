"""The table of valid steps, and the steps that the browser marks."""

from etils import epath

from lmsi_jax.analysis.browser import marks
from lmsi_jax.analysis.rounds import Gold, Round
from lmsi_jax.analysis.validity import read_steps, validity_rows
from lmsi_jax.answers.reader import AnswerReader
from lmsi_jax.core.records import read_jsonl, write_jsonl
from lmsi_jax.pipeline.run_folder import RunFolder
from lmsi_jax.stages.steps import StepsSettings, run_steps
from lmsi_jax.stages.vote import VoteSettings, run_vote
from lmsi_jax.voting.config import VoteConfig
from tests.stages.test_steps import QUESTION, TEXTS

READER = AnswerReader("number")


def test_the_table_compares_votes_with_as_many_random_paths(tmp_path):
    """Catches: a share of other paths, a control that is the vote itself, a contract that no task declared."""
    folder = RunFolder(epath.Path(tmp_path))
    write_jsonl(folder.questions, [QUESTION])
    write_jsonl(folder.paths("rounds/1"), [{"id": "q", "path": i, "text": text} for i, text in enumerate(TEXTS)])
    inputs = {"questions": folder.questions, "paths": folder.paths("rounds/1")}
    run_steps(None, StepsSettings(READER), inputs, {"steps": folder.steps("rounds/1")})
    run_vote(None, VoteSettings(READER, VoteConfig()), inputs, {"votes": folder.votes("rounds/1")})
    round = Round("rounds/1", list(read_jsonl(folder.votes("rounds/1"))), {}, None, (), started=True)
    gold, steps = Gold({"q": ["13"]}, READER), read_steps(folder, "rounds/1")
    rows = {row.name: row.cells[0] for row in validity_rows([round], [steps], gold, ("each_once", "all_used")) if not row.part}
    assert rows["Arithmetic statements"] == "8" and rows["Paths with valid steps (arithmetic, answer)"] == "60.0%"
    assert rows["Right among valid paths"] == "33.3%" and rows["Right among other paths, abstentions included"] == "0.0%"
    assert rows["Labels right by the majority"].startswith("0.0%") and rows["Labels right, valid first"].startswith("0.0%")
    assert rows["Labels right, valid first, with the contract"].startswith("100.0%")
    named = [row.name for row in validity_rows([round], [steps], gold, ())]
    assert not any("with the contract" in name for name in named)
    assert not any(row.audit for row in validity_rows([round], [steps], Gold({}, READER), ()))
    assert validity_rows([round], [{}], gold, ()) == [], "a run whose steps were not checked"


def test_marks_are_in_the_units_of_the_page():
    """Catches: marks that slip behind a character outside the basic plane, and overlapping ones."""
    whole, inside = {"start": 2, "end": 11, "verdict": "wrong", "value": "8"}, {"start": 4, "end": 6, "verdict": "right"}
    steps = {"steps": [{"statements": [whole, inside]}]}
    assert marks("😀 5 + 3 = 9.", steps) == [[3, 12, "wrong", "8"]]

"""A curriculum: rows in the order of their difficulty, and batches that open up with the steps."""

import bisect
import dataclasses

import numpy as np
import pytest
from etils import epath
from hypothesis import given
from hypothesis import strategies as st

from lmsi_jax.answers.reader import AnswerReader
from lmsi_jax.cli.configs import load_config
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.records import read_jsonl, write_jsonl
from lmsi_jax.formatting.config import FormatConfig
from lmsi_jax.formatting.examples import tokenize
from lmsi_jax.formatting.packing import Piece, pack
from lmsi_jax.formatting.prompts import Prompts
from lmsi_jax.recipes.config import Config
from lmsi_jax.stages.finetune import LEVELS
from lmsi_jax.stages.format import FormatSettings, run_format
from lmsi_jax.stages.vote import VoteSettings, run_vote
from lmsi_jax.training.batches import easy_first, eligible
from lmsi_jax.training.config import TrainConfig
from lmsi_jax.voting.config import SelectConfig
from tests.conftest import mesh_of

TRAIN = TrainConfig(steps=10, batch=4, row_length=8, curriculum=0.25, curriculum_end=0.5)


def test_the_easiest_rows_are_open_first_and_all_in_the_end():
    """Catches: a share that never reaches all rows, a first step without a row, an end that is counted in other steps."""
    assert [eligible(step, 100, TRAIN) for step in (0, 1, 4, 5, 9)] == [25, 40, 85, 100, 100]
    assert eligible(0, 1, TRAIN) == 1
    assert eligible(0, 100, dataclasses.replace(TRAIN, curriculum_end=0.0)) == 100


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40), st.integers(1, 9))
def test_rows_are_in_the_order_of_their_difficulty(difficulties, levels):
    """Catches: pieces that are lost or doubled by the division into levels, and hard pieces among the easy rows."""
    pieces = [Piece([1, i + 3, 2], 1, difficulty=value) for i, value in enumerate(difficulties)]
    rows = [[int(token) - 3 for token in row[row > 2]] for row in pack(pieces, 8, levels=levels).tokens]
    assert sorted(i for row in rows for i in row) == list(range(len(pieces)))
    order = sorted(range(len(pieces)), key=lambda i: difficulties[i])
    bounds = [level * len(pieces) // levels for level in range(1, levels + 1)]
    level = {i: bisect.bisect_right(bounds, place) for place, i in enumerate(order)}
    found = [{level[i] for i in row} for row in rows]
    assert levels == 1 or all(len(of_row) == 1 for of_row in found)
    assert [min(of_row) for of_row in found] == sorted(min(of_row) for of_row in found)


def test_batches_are_drawn_from_open_rows_and_are_the_same_again():
    """Catches: a batch that depends on those before it, so that a resumed run sees others; hard rows in the first steps."""
    pieces = [Piece([1, i + 2, 2], 1, difficulty=float(i)) for i in range(64)]
    rows = pack(pieces, 8, levels=LEVELS)
    first, again = (easy_first(mesh_of(1, 1, 1), rows, TRAIN, seed=3) for _ in range(2))
    for step in (7, 1, 4):
        batch = first(step, lambda: None).rows["tokens"]
        np.testing.assert_array_equal(batch, again(step, lambda: None).rows["tokens"])
        seen = batch[:, 1::3].max() - 2
        assert seen <= 64 * (0.25 + 0.75 * min((step - 1) / 5, 1)) + 8
    assert first(1, lambda: None).rows["tokens"].shape == (4, 8)
    with pytest.raises(UserError, match="nothing to train on"):
        easy_first(mesh_of(1, 1, 1), pack([], 8), TRAIN, 0)


@pytest.mark.parametrize("difficulty", ["vote_share", "length"])
def test_rows_record_their_difficulty(difficulty, tmp_path):
    """Catches: the vote share in place of its complement; a difficulty that looks at a gold answer or at another question."""
    folder = epath.Path(tmp_path)
    texts = {"a": ["1 + 1 = 2. The answer is 2."] * 4, "b": ["The answer is 3."] * 3 + ["The answer is 4."]}
    write_jsonl(folder / "questions.jsonl", [{"id": id, "question": f"{id}?", "choices": None} for id in texts])
    paths = [
        {"id": id, "path": i, "text": text, "num_tokens": 9, "logprob": -1.0, "finish": "stop", "prompt_hash": "x"}
        for id, each in texts.items() for i, text in enumerate(each)
    ]  # fmt: skip
    write_jsonl(folder / "paths.jsonl", paths)
    reader, select = AnswerReader("number"), SelectConfig()
    inputs = {name: folder / f"{name}.jsonl" for name in ("questions", "paths")}
    run_vote(None, VoteSettings(reader, select), inputs, {"votes": folder / "votes.jsonl"})
    settings = FormatSettings(
        0, reader, Prompts("", ""), select, FormatConfig(formats=("zero_shot_cot",), difficulty=difficulty)
    )
    run_format(None, settings, inputs | {"votes": folder / "votes.jsonl"}, {"examples": folder / "examples.jsonl"})
    found = {row["id"]: row["difficulty"] for row in read_jsonl(folder / "examples.jsonl")}
    assert found == ({"a": 0.0, "b": 0.25} if difficulty == "vote_share" else {"a": 9.0, "b": 4.0})


def test_a_difficulty_must_be_a_number(tokenizer):
    """Catches: a traceback for a file that somebody else wrote."""
    with pytest.raises(UserError, match="Training row 1 has the `difficulty` 'hard'; it must be a number"):
        tokenize([{"prompt": "a", "target": "b", "difficulty": "hard"}], tokenizer)
    (piece,) = tokenize([{"prompt": "a", "target": "b", "difficulty": 3}], tokenizer)
    assert piece.difficulty == 3


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (["finetune.curriculum=0.25"], "a curriculum needs a share below 1 and what makes rows difficult"),
        (["format.difficulty=length"], "a curriculum needs a share below 1"),
        (["finetune.curriculum=0.0"], "is not within \\(0, 1\\]"),
        (["finetune.curriculum=0.25", "format.difficulty=length", "finetune.objective=scpo"], "scpo has pairs"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, problem):
    """Catches: a difficulty that nothing reads, and a curriculum of rows that are all equal."""
    with pytest.raises(UserError, match=problem):
        load_config(Config, "configs/tiny.py", [f"--config.{setting}" for setting in settings])

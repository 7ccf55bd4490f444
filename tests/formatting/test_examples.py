import pytest

from lmsi_jax.answers.reader import AnswerReader
from lmsi_jax.core.errors import UserError
from lmsi_jax.formatting.examples import Solution, examples, tokenize
from lmsi_jax.formatting.prompts import Prompts
from lmsi_jax.tasks.config import DataConfig
from lmsi_jax.tasks.prompts import Exemplar, question_text
from lmsi_jax.tasks.task import Task, load_task

TASK = Task("t", AnswerReader("number"), (Exemplar("1 + 1?", "1 + 1 = 2.", "2"),))
FORMATS = ("few_shot_cot", "few_shot_direct", "zero_shot_cot", "zero_shot_direct")


def test_the_four_formats_are_the_papers():
    """Catches: a change of layout (table 2 of the paper), reasoning left in the direct exemplars."""
    rows = examples(
        "q", "2 + 3?", None, [Solution(4, " 2 + 3 = 5. The answer is 5.\n", "5")], "number", Prompts.of(TASK), FORMATS
    )
    assert [(row["format"], row["prompt"], row["target"]) for row in rows] == [
        ("few_shot_cot", "Q: 1 + 1?\nA: 1 + 1 = 2. The answer is 2.\n\nQ: 2 + 3?\nA:", " 2 + 3 = 5. The answer is 5."),
        ("few_shot_direct", "Q: 1 + 1?\nA: The answer is 2.\n\nQ: 2 + 3?\nA:", " The answer is 5."),
        ("zero_shot_cot", "Q: 2 + 3?\nA: Let's think step by step.", " 2 + 3 = 5. The answer is 5."),
        ("zero_shot_direct", "Q: 2 + 3?\nA:", " The answer is 5."),
    ]
    assert all(row["id"] == "q" and row["path"] == 4 for row in rows)


def test_direct_rows_repeat_unless_told_otherwise():
    """Catches: de-duplication that also drops reasoning rows, or that is on without being asked for."""
    two = [Solution(0, "a. The answer is 5.", "5"), Solution(1, "b. The answer is 5.", "5")]
    count = lambda **kw: len(examples("q", "?", None, two, "number", Prompts.of(TASK), FORMATS, **kw))  # noqa: E731
    assert count() == 8
    assert count(distinct_direct=True) == 6
    two[1] = two[0]
    assert count(distinct_direct=True) == 6


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "There are no training rows"),
        ([{"prompt": "?", "target": "7"}, {"target": "7"}], "Training row 2 has the `prompt` None"),
        ([{"prompt": "?", "target": 7}], "Training row 1 has the `target` 7"),
        ([{"prompt": "?", "target": "7", "id": [1]}], "Training row 1 has the `id` .1."),
        ([{"prompt": "?", "target": ""}], "is empty, so there is nothing to learn"),
    ],
)
def test_rows_that_cannot_be_trained_on(rows, message, tokenizer, monkeypatch):
    """Catches: training rows of another program that end in a traceback, minutes into the command."""
    monkeypatch.setattr(tokenizer, "eos", -1)
    with pytest.raises(UserError, match=message):
        tokenize(rows, tokenizer)


def test_choices_are_lettered():
    """Catches: letters that do not belong to their options."""
    assert question_text("Which?", ["x", "y"]) == "Q: Which?\nAnswer choices: (A) x (B) y\nA:"


def test_training_prompt_has_the_tokens_of_decoding(tokenizer):
    """Catches: a fine-tuned prompt that is split into other tokens than the one that is decoded from."""
    task = load_task(DataConfig(num_questions=1, num_eval=1))
    prompts = Prompts.of(task)
    question = "Tom has 4 coins and Ann has 17. How many coins is that in all?"
    row = examples("q", question, None, [Solution(0, " 4 + 17 = 21. The answer is 21.", "21")], "number", prompts, FORMATS)[0]
    (piece,) = tokenize([row], tokenizer)
    decoded_from = [tokenizer.bos, *tokenizer.encode(prompts.cot_examples), *tokenizer.encode(prompts.question(question))]
    assert list(piece.tokens[: piece.target_start]) == decoded_from
    assert piece.tokens[-1] == tokenizer.eos
    assert tokenizer.decode(piece.tokens[piece.target_start : -1]) == row["target"]


@pytest.mark.parametrize("weighting", ["token", "row", "question"])
def test_weighting_is_what_it_says(weighting, tokenizer):
    """Catches: long reasoning that outweighs short where it should not, or the other way round."""
    rows = [("a", "Two."), ("a", "Two and two is four, and one more is five."), ("b", "The answer is 3.")]
    pieces = tokenize(
        [{"id": id, "prompt": "Q", "target": target, "format": "few_shot_cot"} for id, target in rows], tokenizer, weighting
    )
    lengths = [len(piece.tokens) - piece.target_start for piece in pieces]
    expected = {"token": lengths, "row": [1, 1, 1], "question": [0.5, 0.5, 1]}[weighting]
    assert lengths == [len(tokenizer.encode(target)) + 1 for _, target in rows]
    assert [piece.weight * length for piece, length in zip(pieces, lengths, strict=True)] == pytest.approx(expected)

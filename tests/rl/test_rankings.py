"""Human rankings in the formats of tools, and what a bad row says."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmsi_jax.core.errors import UserError
from lmsi_jax.rl.rankings import Ranking, annotators_agree, load_rankings, ranks_of

USER, BOT = "\n\nHuman:", "\n\nAssistant:"
MESSAGES = [{"role": "user", "content": "2 + 3?"}]
ITEMS = [{"id": "a", "title": "A", "body": "5"}, {"id": "b", "body": "6"}, {"id": "c", "body": "7"}]


def read(tmp_path, *rows):
    file = tmp_path / "rankings.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load_rankings(file)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (
            {"prompt": "2 + 3?", "answers": ["5", "6", "7"], "ranks": [1, 2, 2], "annotator": "ann", "source": "lmsi review"},
            Ranking("2 + 3?", ("5", "6", "7"), (1, 2, 2), "ann", "lmsi review"),
        ),
        ({"prompt": "2 + 3?", "chosen": "5", "rejected": "6"}, Ranking("2 + 3?", ("5", "6"), (1, 2), "", "preference")),
        (
            {"prompt": "2 + 3?", "chosen": "5", "rejected": "6", "margin": 0.5},
            Ranking("2 + 3?", ("5", "6"), (1, 2), "", "preference", 0.5),
        ),
        (
            {"chosen": f"{USER} 2 + 3?{BOT} It is 5.", "rejected": f"{USER} 2 + 3?{BOT} It is 6."},
            Ranking(f"{USER} 2 + 3?{BOT}", (" It is 5.", " It is 6."), (1, 2), "", "preference"),
        ),
        ({"chosen": "It is 5.", "rejected": "It is 6."}, Ranking("It is ", ("5.", "6."), (1, 2), "", "preference")),
        (
            {
                "prompt": MESSAGES,
                "chosen": [{"role": "assistant", "content": "5"}],
                "rejected": [{"role": "assistant", "content": "6"}],
            },
            Ranking(f"{USER} 2 + 3?{BOT}", (" 5", " 6"), (1, 2), "", "preference"),
        ),
        (
            {
                "prompt": "2 + 3?",
                "chosen": [*MESSAGES, {"role": "assistant", "content": "5"}],
                "rejected": [*MESSAGES, {"role": "assistant", "content": "6"}],
                "score_chosen": 8.0,
                "score_rejected": 5.5,
            },
            Ranking(f"{USER} 2 + 3?{BOT}", (" 5", " 6"), (1, 2), "", "preference", 2.5),
        ),
        (
            {
                "instruction": "2 + 3?",
                "completions": [{"response": "5", "overall_score": 9}, {"response": "6", "overall_score": 9}],
            },
            Ranking("2 + 3?", ("5", "6"), (1, 1), "", "UltraFeedback"),
        ),
        (
            {
                "data": {"prompt": "2 + 3?", "items": ITEMS},
                "annotations": [{"completed_by": 7, "result": [{"type": "ranker", "value": {"ranker": ["b", "a", "c"]}}]}],
            },
            Ranking("2 + 3?", ("6", "5", "7"), (1, 2, 3), "7", "Label Studio"),
        ),
        (
            {
                "data": {"prompt": "2 + 3?", "items": ITEMS},
                "annotations": [{"result": [{"type": "ranker", "value": {"ranker": {"_": ["c"], "good": ["a", "b"]}}}]}],
            },
            Ranking("2 + 3?", ("5", "6", "7"), (1, 1, 2), "", "Label Studio"),
        ),
        (
            {
                "data": {"prompt": "2 + 3?", "answer1": "5", "answer2": "6"},
                "annotations": [{"result": [{"type": "pairwise", "value": {"selected": "right"}}]}],
            },
            Ranking("2 + 3?", ("5", "6"), (2, 1), "", "Label Studio"),
        ),
        (
            {
                "fields": {"prompt": "2 + 3?", "r1": "5", "r2": "6"},
                "responses": [
                    {"user_id": "u", "values": {"rank": {"value": [{"value": "r2", "rank": 1}, {"value": "r1", "rank": 1}]}}}
                ],
            },
            Ranking("2 + 3?", ("6", "5"), (1, 1), "u", "Argilla"),
        ),
    ],
)
def test_formats_of_tools(row, expected, tmp_path):
    """Catches: ties and a third answer that are dropped, a prompt that is left in the answers, an annotator that is lost."""
    assert read(tmp_path, row) == [expected]


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"prompt": "p", "answers": ["a"], "ranks": [1]}, "1 answers and 1 ranks"),
        ({"prompt": "p", "answers": ["a", "b"], "ranks": [0, 1]}, "field `ranks` is"),
        ({"prompt": "p", "answers": ["a", ""], "ranks": [1, 2]}, r"field `answers\[1\]` is ''"),
        ({"prompt": None, "answers": ["a", "b"], "ranks": [1, 2]}, "field `prompt` is None"),
        ({"prompt": "p", "chosen": "a", "rejected": 3}, "field `rejected` is 3"),
        ({"instruction": "p", "completions": [{"response": "a"}]}, r"completions\[0\].overall_score"),
        ({"data": {"items": ITEMS}, "annotations": []}, "`data` has no prompt"),
        (
            {
                "data": {"prompt": "p", "items": ITEMS},
                "annotations": [{"result": [{"type": "ranker", "value": {"ranker": ["z"]}}]}],
            },
            "names the items",
        ),
        ({"question": "p"}, "a ranking of no known format; it has question"),
    ],
)
def test_a_bad_row_is_named(row, problem, tmp_path):
    """Catches: a row that is skipped in silence, or an error without its line and field."""
    with pytest.raises(UserError, match=f"line 2.*{problem}"):
        read(tmp_path, {"prompt": "p", "answers": ["a", "b"], "ranks": [1, 2]}, row)


def test_a_file_without_rankings_is_refused(tmp_path):
    """Catches: a reward model that is trained on nothing."""
    with pytest.raises(UserError, match="has no ranking"):
        read(tmp_path, {"prompt": "p", "answers": [], "ranks": []})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
KEYS = [
    *("prompt", "answers", "ranks", "chosen", "rejected", "instruction", "completions"),
    *("data", "annotations", "fields", "responses"),
]


@given(st.dictionaries(st.sampled_from(KEYS), JSON, max_size=4))
@settings(max_examples=300, deadline=None)
def test_any_row_is_read_or_named(tmp_path_factory, row):
    """Catches: a row of a tool's next version that ends in a traceback."""
    try:
        for ranking in read(tmp_path_factory.mktemp("any"), row):
            assert len(ranking.answers) == len(ranking.ranks) >= 2
    except UserError:
        pass


def test_annotators_agree_by_pairs():
    """Catches: the order of answers that is taken for a verdict; agreement of one annotator with themself."""
    one = Ranking("p", ("a", "b", "c"), (1, 2, 3), "ann")
    turned = Ranking("p", ("c", "a", "b"), (3, 1, 2), "bob")
    assert annotators_agree([one]) is None and annotators_agree([one, turned]).raw == 1
    against = Ranking("p", ("a", "b", "c"), (3, 2, 1), "bob")
    assert annotators_agree([one, against]).raw == 0
    assert ranks_of([3.0, 5.0, 3.0]) == (2, 1, 2)

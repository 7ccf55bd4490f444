"""The card of a run, and what the report says about reviews, faithfulness and limits."""

import re
from pathlib import Path

from lmsi_jax.analysis.limits.remarks import biases, limits, method
from lmsi_jax.analysis.measure_table import MEANINGS, meaning, measure_rows
from lmsi_jax.analysis.report import write_report
from lmsi_jax.core.files import write_text
from lmsi_jax.core.records import dumps, read_jsonl, write_jsonl
from lmsi_jax.core.settings import to_dict
from lmsi_jax.recipes.config import Config
from tests.review.run import GROUP, make_run

MEASURES = [
    {"model": "base", "measure": "hint: biased-reasoning rate", "n": 50, "value": 0.6, "low": 0.5, "high": 0.7},
    {"model": "round-1", "measure": "hint: biased-reasoning rate", "n": 50, "value": 0.0, "low": 0.0, "high": 0.07}
    | {"gain": -0.6, "gain_low": -0.7, "gain_high": -0.5, "gain_n": 50},
    {"model": "base", "measure": "hint: changes to the hinted answer (p)", "value": 0.6},
]


def test_a_card_says_what_the_records_say(tmp_path):
    """Catches: a section that needs another file, a review that is not counted, a name that is read as markup."""
    folder = make_run(tmp_path, questions=24)
    config = to_dict(Config())
    config["data"]["exemplars"] = "my|file_<b>.jsonl"
    write_text(folder.config, dumps(config))
    write_report(folder.root)
    card = folder.card.read_text()
    assert "Nobody has reviewed the labels" in card and "was not tested" in card and "Not tested." in card
    assert r"my\|file\_\<b\>.jsonl" in card and "<b>" not in folder.report.read_text()
    votes = list(read_jsonl(folder.votes(GROUP)))[:20]
    rows = [
        {"id": vote["id"], "path": None, "answer": vote["answer"], "verdict": "right" if n % 4 else "wrong", "reviewer": name}
        for n, vote in enumerate(votes)
        for name in ("<ann>", "bob")[: 1 + (n % 5 == 0)]
    ]
    write_jsonl(folder.reviews(GROUP), [{**row, "key": str(n)} for n, row in enumerate(rows)])
    write_jsonl(folder.measures, MEASURES)
    write_report(folder.root)
    card, page = folder.card.read_text(), folder.report.read_text()
    assert r"Labels reviewed: \<ann\> 20, bob 4; 0 unclear" in card and "&lt;ann&gt; 20" in page and "<ann>" not in page
    assert (
        re.search(r"Right labels, of .*24: 7\d\.\d% \\\[.* from 20 reviewed", card)
        and "Agreement of reviewers on 4 labels" in card
    )
    assert "| hint: biased-reasoning rate | 60.0 (50 to 70) | 0.0 (0 to 7), -60.0 (-70 to -50) |" in card
    assert "base: hint moves 60.0% of the answers" in card and "round 1: hint" not in card
    assert "How to read it" in page and meaning("hint: biased-reasoning rate") in page
    assert "\n\n\n" not in card and "None" not in card


def test_a_run_that_selects_by_checks_says_so():
    """Catches: a model that was trained to pass a check and is then audited by it, without a word."""
    config = to_dict(Config())
    assert limits(config, [], [], []) == [] and "none decides" in method(config)["Checks of steps"]
    config["select"]["vote"] = "valid_first"
    (sentence,) = limits(config, [], [], [])
    assert "arithmetic, answer, contract" in sentence and "no longer audit" in sentence
    config["select"] |= {"vote": "majority", "steps": True}
    assert limits(config, [], [], []) == [sentence]


def test_biases_are_those_beyond_chance():
    """Catches: a rate whose interval reaches zero that is reported as a bias."""
    assert [sentence.partition(":")[0] for sentence in biases(MEASURES)] == ["base"]
    assert [row.cells for row in measure_rows(MEASURES)][1] == ["60.0", ""]


def test_every_measure_says_how_to_read_it():
    """Catches: a measure that was renamed, so that its meaning is lost."""
    from lmsi_jax.analysis import faithfulness

    source = Path(faithfulness.__file__).read_text()
    assert all(beginning.partition(":")[0] in source for beginning in MEANINGS)
    names = re.findall(r'^\s+f?"([a-z][^"{]*: [^"]*|accuracy of the complete path)":', source, re.MULTILINE)
    assert len(names) > 15 and all(meaning(name) for name in names), [name for name in names if not meaning(name)]

"""The report of small work directories written by hand; every expected number is worked out in a comment."""

import json
import re
from html.parser import HTMLParser

import pytest
from etils import epath

from lmsi_jax.analysis.browser import choose
from lmsi_jax.analysis.figures import paths_curve
from lmsi_jax.analysis.plan import read_plan
from lmsi_jax.analysis.report import duration, write_report
from lmsi_jax.analysis.rounds import Gold, label_precision
from lmsi_jax.answers.reader import AnswerReader
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.files import write_text
from lmsi_jax.core.records import read_jsonl, write_jsonl
from lmsi_jax.core.settings import to_dict
from lmsi_jax.pipeline.run_folder import RunFolder
from lmsi_jax.recipes.config import PretrainConfig

NASTY = 'Is </script><b>"3" & 4</b> <!-- <script> größer als 七\u2028? 🧮'
VOID = {"meta", "input", "br", "use", "path", "rect", "circle", "line", "polyline", "polygon"}
CONFIG = {
    "seed": 0, "rounds": 2, "train_from": "base", "model": {"checkpoint": "builtin"},
    "data": {"task": "jsonl", "answer_type": "number"}, "sample": {"paths": 4},
}  # fmt: skip
STAGES = [
    "prepare", "eval/base/evaluate",
    *(
        stage
        for number in (1, 2)
        for stage in (
            *(f"rounds/{number}/{verb}" for verb in ("sample", "vote", "format", "finetune")), f"eval/round-{number}/evaluate",
        )
    ),
    "report",
]  # fmt: skip
MODELS = ["base", "round-1", "round-2"]
# Which of held-out questions h0..h3 are right, by prompting, for the base model and after each round.
CORRECT = {
    "cot": ["TFFF", "TTFF", "TTTT"],
    "self_consistency": ["TTFF", "TTTF", "TTFF"],
}


class Page(HTMLParser):
    """A parsed page: text by element, scripts, attributes; raises on tags that do not nest."""

    def __init__(self, html: str):
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.scripts: list[tuple[dict, str]] = []
        self.rows: list[list[str]] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag == "script":
            self.scripts.append((dict(attrs), ""))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open and self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            attributes, text = self.scripts[-1]
            self.scripts[-1] = (attributes, text + data)
            return
        self.text += data
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += data

    def row(self, *start: str) -> list[str]:
        """The cells of the one table row that begins with `start`."""
        (found,) = [row for row in self.rows if row[: len(start)] == list(start)]
        return found

    def rounds(self) -> dict[str, dict]:
        """The embedded rounds by name."""
        data = [json.loads(text) for attributes, text in self.scripts if attributes.get("type") == "application/json"]
        return {d["round"]: d for d in data}


def make_run(folder, *, scored: bool = True, gold: bool = True, rounds: int = 2) -> epath.Path:
    """A work directory of `rounds` finished rounds, of two that the config plans."""
    folder = epath.Path(folder)
    write_text(folder / "config.json", json.dumps(CONFIG))
    about = {
        "command_line": ["lmsi", "run", "--x=a b"], "git": "abc123", "started": "2026-01-02T03:04:05+00:00",
        "versions": {"lmsi_jax": "0.1.0", "jax": "0.10.2"}, "recipe": "self_improve", "stages": STAGES,
    }  # fmt: skip
    write_text(folder / "run.json", json.dumps(about))
    texts = {"a": NASTY, "b": "Two?", "c": "Three?"}
    choices = {"b": ["one <i>", "two"]}
    write_jsonl(folder / "questions.jsonl", ({"id": i, "question": t, "choices": choices.get(i)} for i, t in texts.items()))
    write_jsonl(folder / "audit/gold.jsonl", [{"id": "a", "answer": "3.0"}, {"id": "b", "answer": "$8"}] if gold else [])
    for number in range(1, rounds + 1):
        write_round(folder / "rounds" / str(number))
        write_jsonl(
            folder / "metrics" / f"rounds-{number}-finetune.jsonl", [{"step": 10, "loss": 0.5, "tokens_per_second": 1234.0}]
        )
        server = {"requests": 36, "prompt_tokens": 1000, "completion_tokens": 2000, "dollars": 0.13}
        write_jsonl(
            folder / f"metrics/rounds-{number}-sample.jsonl", [{"step": 3, **(server if number == 1 else {"drawn": 0.54})}]
        )
        for stage, seconds in (("sample", 125.0), ("finetune", 30.0)):
            times = {"compile": 20.0, "host": 0.1}
            manifest = {"stage": f"rounds/{number}/{stage}", "seconds": seconds, "times": times}
            write_text(folder / "manifests" / f"rounds-{number}-{stage}.json", json.dumps(manifest))
    for prompting, checkpoints in CORRECT.items() if scored else ():
        for model, pattern in list(zip(MODELS, checkpoints, strict=True))[: rounds + 1]:
            write_scores(folder / "eval" / model / f"{prompting}.jsonl", pattern, 4 if prompting != "cot" else 1)
    return folder


def write_round(folder: epath.Path) -> None:
    """Four paths a question. a: 3 3 3 5, right; b: 7 7 7 7, wrong; c: nobody answers."""
    said = {"a": ["3", "3", "3", "5"], "b": ["7"] * 4, "c": [None] * 4}
    write_jsonl(folder / "paths.jsonl", (
        {
            "id": id, "path": i, "text": f"Line <one>.\nThe answer is {answer}." if answer else "</script>", "num_tokens": 9,
            "logprob": float("nan") if answer is None else -1.5, "finish": "stop" if answer else "length",
        }
        for id, answers in said.items() for i, answer in enumerate(answers)
    ))  # fmt: skip
    vote = lambda id, answer, share, counts, kept, why=(): {  # noqa: E731
        "id": id, "answer": answer, "confidence": share, "margin": share, "counts": counts, "num_paths": 4, "kept": kept,
        "answers": said[id],
        "abstained": [{"path": i, "reason": reason} for i, reason in enumerate(why)],
    }  # fmt: skip
    write_jsonl(folder / "votes.jsonl", [
        vote("a", "3", 0.75, {"3": 3, "5": 1}, [0, 1, 2]),
        vote("b", "7", 1.0, {"7": 4}, [0, 1, 2, 3]),
        vote("c", None, 0.0, {}, [], ["truncated", "truncated", "truncated", "no_answer_phrase"]),
    ])  # fmt: skip
    write_jsonl(folder / "examples.jsonl", (
        {"id": id, "path": path, "format": format, "prompt": "", "target": f" The answer is {answer}."}
        for id, path, answer in (("a", 0, "3"), ("a", 1, "3"), ("b", 0, "7"))
        for format in ("few_shot_cot", "zero_shot_cot")
    ))  # fmt: skip


def write_scores(file: epath.Path, pattern: str, paths: int) -> None:
    write_jsonl(file, (
        {
            "id": f"h{i}", "prediction": "1" if right == "T" else "2", "correct": right == "T", "gold": "1", "confidence": 0.75,
            "answers": (["1"] * 3 + ["2"] if right == "T" else ["2"] * 3 + [None])[-paths:], "num_paths": paths,
            "unparsed": int(right == "F" and paths > 1), "truncated": 0,
        }
        for i, right in enumerate(pattern)
    ))  # fmt: skip


def report(folder: epath.Path) -> tuple[Page, str]:
    html = write_report(folder).read_text()
    return Page(html), html


def test_headline_numbers(tmp_path):
    """Catches: a gain against the wrong checkpoint, an interval of the wrong row, a p-value of unpaired scores."""
    page, _ = report(make_run(tmp_path))
    # CoT goes from 1 to 2 to 4 of 4. Wilson for 1 of 4: centre .3725, half width .3269. Three questions got better after
    # round 2 and none worse: p = 2 / 2^3; one after round 1: p = 2 / 2^1.
    base = ["25.0%", "4.6% to 69.9%", "", "", "", "4", "1", "0.0%", "0.0%"]
    assert page.row("CoT, greedy") == ["CoT, greedy", "base", *base]
    cot_1, sc_1 = [row for row in page.rows if row[:1] == ["round 1"] and len(row) == 10]
    cot_2, sc_2 = [row for row in page.rows if row[:1] == ["round 2"] and len(row) == 10]
    assert cot_1[1:] == ["50.0%", "15.0% to 85.0%", "", "+25.0", "1.000", "4", "1", "0.0%", "0.0%"]
    assert cot_2[1:] == ["100.0%", "51.0% to 100.0%", "", "+75.0", "0.250", "4", "1", "0.0%", "0.0%"]
    assert (sc_1[1], sc_1[4], sc_2[1], sc_2[4]) == ("75.0%", "+25.0", "50.0%", "+0.0")
    assert sc_1[8] == "6.2%" and sc_2[8] == "12.5%"  # 1 and 2 of 16 paths have no answer
    sentence = "CoT greedy rose from 25.0% to 100.0% on 4 held-out questions after 2 rounds"
    assert sentence in page.text and "exact McNemar p = 0.250, which chance alone can explain" in page.text


def test_label_table(tmp_path):
    """Catches: precision over undecided questions or ones without gold, gold compared before it is canonical."""
    page, _ = report(make_run(tmp_path))
    # Gold is known of a ("3.0", right) and b ("$8", wrong). Agreeing: 3 right of 7. Trained on: 2 right of 3.
    twice = lambda cell: [cell, cell]  # noqa: E731
    assert page.row("Decided")[1:] == twice("66.7%")
    assert page.row("Mean vote share")[1:] == twice("58.3%")
    assert page.row("Label precisionaudit only")[1:] == twice("50.0% [9.5%, 90.5%]")
    assert page.row("Precision of agreeing pathsaudit only")[1:] == twice("42.9%")
    assert page.row("Precision of paths trained onaudit only")[1:] == twice("66.7%")
    assert page.row("Training paths per question")[1:] == twice("1.0")
    assert page.row("Paths without an answer")[1:] == twice("33.3%")
    assert page.row("cut off at the token limit")[1:] == twice("25.0%")
    assert page.row("Training rows")[1:] == twice("6")
    assert page.row("zero_shot_cot")[1:] == twice("3")
    assert page.row("Round 2: finetune") == ["Round 2: finetune", "30 s", "", "1,234", "compile 20 s"]
    assert page.row("All stages")[1] == "5 min 10 s"
    assert (
        page.row("Round 1: sample")[-1] == "compile 20 s, 36 requests, 1,000 prompt and 2,000 completion tokens, 0.13 dollars"
    )
    assert page.row("Round 2: sample")[-1] == "compile 20 s, 54% of the paths that could be drawn"


@pytest.mark.parametrize("what", [{}, {"scored": False, "gold": False}])
def test_page_stands_alone(tmp_path, what):
    """Catches: a script, font or picture from the network, an id that comes twice, tags that do not nest."""
    page, html = report(make_run(tmp_path, **what))
    loads = [value for _, name, value in page.attributes if name in ("src", "href", "xlink:href", "srcset", "action", "data")]
    assert all(value.startswith("#") for value in loads), loads
    assert not re.search(r"url\((?!#)|@import|fetch\(|import\(", html)
    links = set(re.findall(r"https?://[^\s\"'<]+", html))
    assert links <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}, links
    ids = [value for _, name, value in page.attributes if name == "id" and not re.fullmatch(r"[mp][0-9a-f]{10}", value)]
    assert len(ids) == len(set(ids)), ids
    assert page.text.count("CoT, greedy") == (2 if not what else 0)  # the table, and the legend as text


def test_questions_cannot_break_out_of_their_script(tmp_path):
    """Catches: question or path text that ends the script element, or JSON that a browser rejects."""
    page, html = report(make_run(tmp_path))
    assert "<b>" not in html and "</script><b>" not in html and "<one>" not in html and "\u2028" not in html
    assert len(page.scripts) == 3  # two rounds and the page's own
    for attributes, text in page.scripts[:2]:
        assert attributes["type"] == "application/json" and "<" not in text and "NaN" not in text
    data = page.rounds()["round 2"]
    assert data["total"] == 3 and [q["id"] for q in data["questions"]] == ["c", "a", "b"]  # by vote share
    a = data["questions"][1]
    assert a["question"] == NASTY and a["gold"] == "3" and a["answer"] == "3" and a["trained"] == [0, 1]
    assert a["counts"] == [["3", 3, True], ["5", 1, False]] and a["right"] is True
    assert [p["outcome"] for p in a["paths"]] == ["agrees", "agrees", "agrees", "other"]
    assert a["paths"][3] == {
        "path": 3, "text": "Line <one>.\nThe answer is 5.", "outcome": "other", "answer": "5", "tokens": 9, "logprob": -1.5,
        "cut": False, "marks": [], "failed": [],
    }  # fmt: skip
    c = data["questions"][0]
    assert [p["answer"] for p in c["paths"]][2:] == ["cut off at the token limit", "no “answer is”"]
    assert c["gold"] is None and c["paths"][0]["logprob"] is None and c["paths"][0]["cut"]
    assert data["questions"][2]["choices"] == ["one <i>", "two"]


@pytest.mark.parametrize("value", ["x", 10**400, True, float("nan"), [1]])
def test_numbers_that_are_none_leave_the_page_whole(value, tmp_path):
    """Catches: a log-probability or a number of tokens of another engine that ends the report, or that a browser rejects."""
    folder = make_run(tmp_path)
    file = folder / "rounds/1/paths.jsonl"
    rows = [{**row, "logprob": value, "num_tokens": value} for row in read_jsonl(file)]
    write_text(file, "".join(json.dumps(row) + "\n" for row in rows))  # write_jsonl has null for NaN, others do not
    page, html = report(folder)
    assert "NaN" not in page.scripts[0][1]
    assert {(p["tokens"], p["logprob"]) for q in page.rounds()["round 1"]["questions"] for p in q["paths"]} == {(None, None)}


def test_without_gold_and_scores(tmp_path):
    """Catches: a report that needs evaluation or gold answers, or that speaks of precision without them."""
    page, html = report(make_run(tmp_path, scored=False, gold=False))
    assert "In round 2 the vote decided 2 of 3 questions, with a mean vote share of 58.3%" in page.text
    assert "No held-out scores are stored" in page.text and "it is not known how many labels are right" in page.text
    assert "precision" not in page.text.lower() and 'value="wrong"' not in html
    assert page.text.count("Vote shares of the training questions") == 1 and html.count("<svg") == 2  # and the loss
    assert all(q["gold"] is None for q in page.rounds()["round 1"]["questions"])


def test_unfinished_rounds(tmp_path):
    """Catches: a report that fails, or keeps silent, when a round has only begun or a metrics line is half written."""
    folder = make_run(tmp_path, rounds=1)
    page, _ = report(folder)
    assert "Round 2 has not started." in page.text and "after one round of self-improvement" in page.text
    write_round(folder / "rounds/2")
    (folder / "rounds/2/examples.jsonl").unlink()
    (folder / "rounds/2/votes.jsonl").unlink()
    page, _ = report(folder)
    assert "Round 2 is unfinished: no votes, training rows or fine-tuned model yet." in page.text
    assert list(page.rounds()) == ["round 1"] and page.row("Questions voted")[1:] == ["3"]
    write_round(folder / "rounds/2")
    (folder / "rounds/2/examples.jsonl").unlink()
    write_text(folder / "metrics/rounds-2-finetune.jsonl", '{"step": 10, "loss": 0.5}\n{"step": 20, "lo')
    page, _ = report(folder)
    assert "Round 2 is unfinished: no training rows or fine-tuned model yet." in page.text
    write_text(folder / "manifests/rounds-2-finetune.json", json.dumps({"stage": "rounds/2/finetune", "seconds": 1.0}))
    page, _ = report(folder)
    assert "Round 2 is unfinished: no training rows yet." in page.text
    assert page.row("Training rows")[1:] == ["6", "–"] and page.row("few_shot_cot")[1:] == ["3", "–"]
    write_round(folder / "rounds/2")
    assert "is unfinished" not in report(folder)[0].text


def test_a_run_that_has_only_begun(tmp_path):
    """Catches: a division by zero votes, or a crash of the page, before anything was decoded."""
    write_text(tmp_path / "config.json", json.dumps(CONFIG))
    page, _ = report(epath.Path(tmp_path))
    assert "Nothing has been scored or voted yet." in page.text and "No round has voted yet." in page.text
    assert not page.scripts


def test_scores_without_a_base_have_no_gain(tmp_path):
    """Catches: the whole accuracy shown as a gain over a base model that was never scored."""
    folder = make_run(tmp_path)
    (folder / "eval/base").rmtree()
    page, _ = report(folder)
    assert "CoT greedy is at 100.0% [51.0%, 100.0%] on 4 held-out questions after round 2." in page.text
    assert page.row("CoT, greedy", "round 1")[5:7] == ["", ""]


def test_not_a_work_directory(tmp_path):
    """Catches: an empty report of a mistyped directory."""
    with pytest.raises(UserError, match=r"holds no config\.json"):
        write_report(epath.Path(tmp_path))


def test_same_directory_same_bytes(tmp_path):
    """Catches: drawings with a date or random ids, which make every report differ."""
    folder = make_run(tmp_path)
    assert report(folder)[1] == report(folder)[1]


def test_choose_is_even_and_keeps_the_ends():
    """Catches: a browser that shows only sure, or only unsure, questions."""
    votes = [{"id": f"{i}", "confidence": i / 10} for i in (4, 2, 9, 1, 7, 3, 5)]
    assert [v["confidence"] for v in choose(votes, 3)] == [0.1, 0.4, 0.9]
    assert len(choose(votes, 7)) == 7 and [v["confidence"] for v in choose(votes, 1)] == [0.1]


def test_curve_ends_at_the_stored_score():
    """Catches: a last point that breaks ties anew and so disagrees with the table; no answer counted as right."""
    tie = {"id": "t", "confidence": 0.5, "answers": ["1", "2"], "gold": "2", "correct": False}
    none = {"id": "n", "confidence": 0.0, "answers": [None, None], "gold": None, "correct": False}
    assert paths_curve([tie] * 8)[2].value == 0.0
    assert {size: estimate.value for size, estimate in paths_curve([none]).items()} == {1: 0.0, 2: 0.0}
    several = {**tie, "answers": ["x", "y"], "gold": "x", "right": [True, True], "correct": True}
    assert paths_curve([several] * 8)[1].value == 1.0, "another accepted answer is right too"


def test_label_precision_counts_labels_alone():
    """Catches: an undecided question counted as a wrong label, a question without gold counted at all."""
    votes = [{"id": id, "answer": answer} for id, answer in (("right", "1"), ("wrong", "1"), ("open", None), ("no gold", "1"))]
    assert label_precision(votes, Gold({"right": ["1"], "wrong": ["2"], "open": ["1"]}, AnswerReader("number"))) == (1, 2)


def test_durations():
    """Catches: "60 s", "1 min 60 s" and their like at the seams."""
    seen = [duration(s) for s in (0.04, 9.96, 59.4, 59.6, 119.7, 3599.6, 3900.0)]
    assert seen == ["0.0 s", "10.0 s", "59 s", "1 min 00 s", "2 min 00 s", "1 h 00 min", "1 h 05 min"]


def test_a_run_of_another_recipe_shows_its_own_names(tmp_path):
    """Catches: models taken for round numbers, and gains over another model than the first."""
    folder = epath.Path(tmp_path)
    sides = {"teacher": {"checkpoint": "builtin"}, "student": {"checkpoint": ""}}
    write_text(folder / "config.json", json.dumps({"seed": 0, **sides, "data": CONFIG["data"], "sample": {"paths": 4}}))
    models = ["student", "teacher", "distilled"]
    stages = [*(f"eval/{model}/evaluate" for model in models), "teacher/vote", "teacher/finetune"]
    write_text(folder / "run.json", json.dumps({"recipe": "distill", "stages": stages}))
    write_jsonl(folder / "questions.jsonl", ({"id": i, "question": i, "choices": None} for i in "abc"))
    write_round(folder / "teacher")
    for model, pattern in zip(models, CORRECT["cot"], strict=True):
        write_scores(folder / "eval" / model / "cot.jsonl", pattern, 1)
        write_scores(folder / "eval" / model / "self_consistency.jsonl", pattern, 4)
    write_jsonl(folder / "metrics/teacher-finetune.jsonl", [{"step": 10, "loss": 0.5}, {"step": 20, "loss": 0.4}])
    page, html = report(folder)
    assert page.row("CoT, greedy")[1] == "student"
    assert ["teacher", "50.0%"] in [row[:2] for row in page.rows if row[4:5] == ["+25.0"]]
    assert "from model student to distilled" in page.text and "Teacher is unfinished: no fine-tuned model yet." in page.text
    assert list(page.rounds()) == ["teacher"] and not re.search(r"(?i)\bround \d", page.text)
    for figure in ("Accuracy by model", "Accuracy by vote share", "Accuracy by number of paths"):
        drawn = html[html.index(figure) :].partition("</svg>")[0]
        assert all(f">{model}<" in drawn for model in models), figure
    assert page.row("vote share")[1:] == [f"{model}: accuracy (questions)" for model in models]
    assert page.row("paths", "student")[1:] == models


def test_rounds_and_models_are_in_their_order(tmp_path):
    """Catches: round 10 before round 2, and models that are there beside the planned ones left out or put first."""
    folder = epath.Path(tmp_path)
    for name in ("rounds/10", "rounds/2", "rounds/1", "eval/round-10", "eval/round-2", "eval/base", "eval/mine"):
        (folder / name).mkdir(parents=True)
    rounds = ["rounds/1", "rounds/2", "rounds/10"]
    assert read_plan(RunFolder(folder)).groups == rounds
    write_text(folder / "run.json", json.dumps({"stages": ["eval/base/evaluate", "rounds/1/vote", "eval/round-1/evaluate"]}))
    planned = read_plan(RunFolder(folder))
    assert planned.groups == rounds
    assert planned.models == ["base", "round-1", "mine", "round-2", "round-10"]


def test_a_pre_training_run_has_curves(tmp_path):
    """Catches: a report that needs questions, votes or a vote's settings; a validation loss that nobody sees."""
    folder = epath.Path(tmp_path)
    assert "data" not in to_dict(PretrainConfig())
    write_text(folder / "config.json", json.dumps(to_dict(PretrainConfig())))
    write_text(folder / "run.json", json.dumps({"recipe": "pretrain", "stages": ["corpus", "tokenizer", "train", "report"]}))
    losses = [{"step": 10, "loss": 0.4}, {"step": 20, "loss": 0.2, "validation_loss": 0.25}]
    write_jsonl(folder / "metrics/train.jsonl", losses)
    write_text(folder / "manifests/train.json", json.dumps({"stage": "train", "seconds": 30.0}))
    page, html = report(folder)
    assert "Training loss" in page.text and html.count("<svg") == 1
    names = re.findall(r">(train(?:, held out)?)<", html[html.index("<svg") : html.index("</svg>")])
    assert sorted(names) == ["train", "train, held out"], "a curve of each"
    assert page.row("Train")[1] == "30 s" and "No round has voted" not in page.text
    write_jsonl(folder / "metrics/train.jsonl", losses[:1])
    assert "held out" not in report(folder)[0].text, "no curve of what was not measured"

"""Published data sets, in small files of exactly their formats."""

import json
import subprocess
import sys

import pytest
from etils import epath

from lmsi_jax.answers.extract import canonical
from lmsi_jax.core.errors import UserError
from lmsi_jax.tasks.config import DataConfig
from lmsi_jax.tasks.dataset import BadRow, Row, json_list, tab_separated
from lmsi_jax.tasks.sets import DATASETS, IN_DOMAIN, OUT_OF_DOMAIN
from lmsi_jax.tasks.sources import question_source
from lmsi_jax.tasks.splits import load_split
from lmsi_jax.tasks.task import load_task

STEM = {"stem": "What melts?", "choices": [{"text": "ice", "label": "A"}, {"text": "sand", "label": "B"}]}
ANLI = {"uid": "u1", "context": "A dog runs.", "hypothesis": "It is wet.", "label": "n", "reason": "nothing said"}
DROP = {
    "nfl_1": {
        "passage": "The Jets won 24-10 on 5 May.",
        "qa_pairs": [
            {
                "question": "By how many points did they win?",
                "query_id": "d1",
                "answer": {"number": "14", "date": {"day": "", "month": "", "year": ""}, "spans": []},
                "validated_answers": [{"number": "", "date": {}, "spans": ["14 points"]}],
            },
            {
                "question": "When?",
                "query_id": "d2",
                "answer": {"number": "", "date": {"day": "5", "month": "May", "year": ""}, "spans": []},
            },
            {"question": "Who?", "query_id": "d3", "answer": {"number": "", "date": {}, "spans": ["Jets", "fans"]}},
        ],
    }
}
RTE = """index\tsentence1\tsentence2\tlabel
0\tA "dog" runs.\tAn animal moves.\tentailment
1\tIt rained.\tIt snowed.\tnot_entailment
"""
NLI_QUESTION = "Premise: A dog runs.\nHypothesis: It is wet.\nBased on the premise, is the hypothesis true?"

# (data set, split, file, what it holds, the questions that come of it: id, question, choices, answer)
FILES = [
    ("gsm8k", "test", "test.jsonl", [{"question": "3 + 4?", "answer": "3 + 4 = <<3+4=7>>7\n#### 1,007"}],
     [("gsm8k-test-00001", "3 + 4?", None, "1007")]),
    ("svamp", "test", "SVAMP.json", {"list": [
        {"ID": "chal-1", "Body": "Jack had 8 pens", "Question": "How many are left?", "Answer": 5.0, "Equation": "( 8 - 3 )"},
        {"ID": "chal-2", "Body": "He has 8.", "Question": "How many?", "Answer": 2.5}]},
     [("chal-1", "Jack had 8 pens. How many are left?", None, "5"), ("chal-2", "He has 8. How many?", None, "2.5")]),
    ("multiarith", "test", "MultiArith.json", {"list": [{"iIndex": 0, "sQuestion": " For 3 days? ", "lSolutions": [9.0]}]},
     [("multiarith-test-00001", "For 3 days?", None, "9")]),
    ("aqua", "test", "test.json", [{"question": "x?", "options": ["A)21", "B)21.5", "C) 22"], "rationale": "", "correct": "B"}],
     [("aqua-test-00001", "x?", ["21", "21.5", "22"], "B")]),
    ("strategyqa", "train", "strategyqa_train.json", {"list": [
        {"qid": "s1", "question": "Can it?", "answer": True, "facts": []}]},
     [("s1", "Can it?", None, "yes")]),
    ("strategyqa", "test", "task.json", {"examples": [
        {"input": "Can it?", "target_scores": {"Yes": 0, "No": 1}, "target": "No. It can not."}], "name": "strategyqa"},
     [("strategyqa-test-00001", "Can it?", None, "no")]),
    ("arc_challenge", "train", "ARC-Challenge-Train.jsonl", [{"id": "m1", "question": STEM, "answerKey": "B"}, {
        "id": "m2", "answerKey": "1", "question": {"stem": "?", "choices": [
            {"text": "ice", "label": "1"}, {"text": "sand", "label": "2"}]}}],
     [("m1", "What melts?", ["ice", "sand"], "B"), ("m2", "?", ["ice", "sand"], "A")]),
    ("openbookqa", "test", "test.jsonl", [{"id": "o1", "question": STEM, "answerKey": "A"}],
     [("o1", "What melts?", ["ice", "sand"], "A")]),
    ("commonsenseqa", "validation", "dev_rand_split.jsonl", [
        {"answerKey": "A", "id": "c1", "question": {"question_concept": "melting", **STEM}}],
     [("c1", "What melts?", ["ice", "sand"], "A")]),
    ("anli_a2", "test", "R2/test.jsonl", [ANLI], [("u1", NLI_QUESTION, None, "unknown")]),
    ("mnli_mm", "validation", "multinli_1.0_dev_mismatched.jsonl", [
        {"sentence1": "A dog runs.", "sentence2": "It is wet.", "gold_label": "contradiction", "pairID": "p1"},
        {"sentence1": "A dog runs.", "sentence2": "It is dry.", "gold_label": "-", "pairID": "p2"}],
     [("p1", NLI_QUESTION, None, "no")]),
    ("rte", "validation", "dev.tsv", RTE, [
        ("rte-validation-00001", "Premise: A \"dog\" runs.\nHypothesis: An animal moves.\nBased on the premise, is the "
         "hypothesis true?", None, "yes"),
        ("rte-validation-00002", "Premise: It rained.\nHypothesis: It snowed.\nBased on the premise, is the hypothesis true?",
         None, "no")]),
    ("drop", "validation", "drop_dataset_dev.json", DROP, [
        ("d1", "Passage: The Jets won 24-10 on 5 May.\nQuestion: By how many points did they win?", None, "14"),
        ("d2", "Passage: The Jets won 24-10 on 5 May.\nQuestion: When?", None, "5 May"),
        ("d3", "Passage: The Jets won 24-10 on 5 May.\nQuestion: Who?", None, "Jets, fans")]),
]  # fmt: skip


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, list):
        content = "".join(json.dumps(row) + "\n" for row in content)
    elif isinstance(content, dict):
        content = json.dumps(content.get("list", content))
    path.write_text(content)


@pytest.mark.parametrize(("name", "split", "file", "content", "expected"), FILES, ids=[f"{f[0]}-{f[1]}" for f in FILES])
def test_published_files(tmp_path, name, split, file, content, expected):
    """Catches: a field or label of a published format that is read as something else."""
    write(tmp_path / file, content)
    rows = load_split(DATASETS[name], split, "files", str(tmp_path))
    assert [(r["id"], r["question"], r["choices"], r["answer"]) for r in rows] == expected
    for row in rows:
        assert canonical(row["answer"], DATASETS[name].answer_type) is not None
    if name == "drop":
        assert rows[0]["answers"] == ["14", "14 points"]


@pytest.mark.parametrize(
    ("name", "split", "file", "content", "message"),
    [
        ("gsm8k", "test", "test.jsonl", [{"question": "x"}], "test.jsonl line 1: the field `answer` is missing"),
        ("gsm8k", "test", "test.jsonl", [{"question": "x", "answer": "7"}], "line 1: the field `answer` has no '####'"),
        ("svamp", "test", "SVAMP.json", {"list": [{"ID": "1", "Body": "b", "Question": "q", "Answer": "5"}]},
         "item 1: the field `Answer` is '5', not a number"),
        ("multiarith", "test", "MultiArith.json", {"list": [{"sQuestion": "q", "lSolutions": []}]},
         "the field `lSolutions` is []"),
        ("aqua", "test", "test.json", [{"question": "x", "options": ["21", "B)2"], "correct": "A"}],
         "the field `options` has '21', which does not begin with its letter"),
        ("aqua", "test", "test.json", [{"question": "x", "options": ["A)1", "B)2"], "correct": "C"}],
         "the field `options` names the option 'C', and there are A, B"),
        ("arc_challenge", "test", "ARC-Challenge-Test.jsonl", [{"id": "1", "question": {"stem": "s"}, "answerKey": "A"}],
         "the field `question.choices` is missing"),
        ("anli_a1", "test", "R1/test.jsonl", [{**ANLI, "label": "x"}], "the field `label` is 'x', not one of e, n, c"),
        ("rte", "validation", "dev.tsv", "index\tsentence1\tsentence2\tlabel\n0\ta\tb\n", "line 2: the field `label` is None"),
        ("drop", "validation", "drop_dataset_dev.json", {"p": {"passage": "x", "qa_pairs": [
            {"question": "q", "query_id": "1", "answer": {"number": "", "spans": []}}]}},
         "passage 'p' question 1: the field `answer` has no number, no date and no span"),
        ("drop", "validation", "drop_dataset_dev.json", {"p": {"passage": "x"}}, "passage 'p': no list `qa_pairs`"),
        ("strategyqa", "test", "task.json", "{", "task.json: not valid JSON"),
    ],
)  # fmt: skip
def test_malformed_rows_are_named(tmp_path, name, split, file, content, message):
    """Catches: a row that is dropped without a word, or an error that does not say where."""
    write(tmp_path / file, content)
    with pytest.raises(UserError) as error:
        load_split(DATASETS[name], split, "files", str(tmp_path))
    assert message in str(error.value)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_rows_of_a_table_end_at_newlines_alone(tmp_path, end):
    """Catches: a sentence with a line separator or a form feed that is split into two bad rows."""
    rows = [
        "index\tsentence1\tsentence2\tlabel",
        *(f"{i}\tA{mark}B\tC\tentailment" for i, mark in enumerate("\u2028\x85\x0c\x1e\r")),
    ]
    (tmp_path / "dev.tsv").write_bytes(("\ufeff" + end.join(rows) + end).encode())
    found = load_split(DATASETS["rte"], "validation", "files", str(tmp_path))
    assert [row["question"].split("\nHypothesis")[0] for row in found] == [
        f"Premise: A{mark}B" for mark in "\u2028\x85\x0c\x1e\r"
    ]
    assert [row["id"] for row in found] == [f"rte-validation-{i:05d}" for i in range(1, 6)]


def test_malformed_rows_are_counted(tmp_path, capsys):
    """Catches: bad rows that vanish, or that stop a run whose user has agreed to leave them out."""
    good = {"question": "3 + 4?", "answer": "#### 7"}
    write(tmp_path / "train.jsonl", [good, {"question": "x"}, good, *[{"answer": "#### 1"}] * 6])
    with pytest.raises(UserError, match=r"7 of 9 rows cannot be read:(?s:.*)line 2(?s:.*)and 2 more(?s:.*)skip_malformed"):
        load_split(DATASETS["gsm8k"], "train", "files", str(tmp_path))
    rows = load_split(DATASETS["gsm8k"], "train", "files", str(tmp_path), skip_malformed=True)
    assert [r["id"] for r in rows] == ["gsm8k-train-00001", "gsm8k-train-00003"]
    said = capsys.readouterr().out.replace("\n", " ")
    assert "gsm8k train: 2 questions; skipped: 7 malformed, first: " in said


def test_test_splits_are_not_trained_on(tmp_path):
    """Catches: self-training on the questions that are scored."""
    for file in ("train.jsonl", "test.jsonl"):
        write(tmp_path / file, [{"question": f"{file}?", "answer": "#### 7"}])
    config = {"task": "gsm8k", "source": "files", "folder": str(tmp_path)}
    assert question_source(DataConfig(**config)).training(0)[0]["question"] == "train.jsonl?"
    assert question_source(DataConfig(**config)).held_out(0)[0]["question"] == "test.jsonl?"
    for asked in ({"train_split": "test"}, {"eval_split": "train"}):
        with pytest.raises(UserError, match="is the one that is scored"):
            question_source(DataConfig(**config, **asked)).training(0)
    assert question_source(DataConfig(**config, train_split="test", train_on_test=True)).training(0)
    with pytest.raises(UserError, match="The paper only tests on svamp"):
        question_source(DataConfig(task="svamp", source="files", folder=str(tmp_path))).training(0)


def test_names_and_types(tmp_path):
    """Catches: a typo that runs another task; an answer type that contradicts the set."""
    with pytest.raises(UserError, match="There is no data.task 'gsm8'; the nearest is 'gsm8k'"):
        load_task(DataConfig(task="gsm8"))
    with pytest.raises(UserError, match="answers of aqua are of type 'choice'"):
        load_task(DataConfig(task="aqua", answer_type="number"))
    with pytest.raises(UserError, match=r"folder of gsm8k's published files \(train.jsonl, test.jsonl\)"):
        question_source(DataConfig(task="gsm8k", source="files")).held_out(0)
    with pytest.raises(UserError, match="TensorFlow Datasets has no gsm8k"):
        question_source(DataConfig(task="gsm8k", source="tfds")).held_out(0)
    with pytest.raises(UserError, match=r"(?s)it is the file of gsm8k's split 'test'"):
        question_source(DataConfig(task="gsm8k", source="files", folder=str(tmp_path))).held_out(0)


def test_the_paper_s_tables():
    """Catches: a set that is missing, or on the wrong side of the paper's in- and out-of-domain tables."""
    assert [d.name for d in IN_DOMAIN] == ["gsm8k", "drop", "arc_challenge", "openbookqa", "anli_a2", "anli_a3"]
    assert {d.name for d in OUT_OF_DOMAIN} >= {"aqua", "svamp", "strategyqa", "anli_a1", "rte", "mnli_m", "mnli_mm"}
    assert {d.name: d.domain for d in DATASETS.values()} == {
        **{d.name: "in" for d in IN_DOMAIN},
        **{d.name: "out" for d in OUT_OF_DOMAIN},
    }


PREPARED = """
import sys, numpy as np, tensorflow_datasets as tfds
F = tfds.features
def store(name, config, features, splits):
    with tfds.core.registered.skip_registration():
        class Made(tfds.core.GeneratorBasedBuilder):
            VERSION = tfds.core.Version("1.0.0")
            BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=config)] if config else []
            def _info(self):
                return tfds.core.DatasetInfo(builder=self, features=F.FeaturesDict(features))
            def _split_generators(self, manager):
                return {split: enumerate(rows) for split, rows in splits.items()}
            def _generate_examples(self):
                raise NotImplementedError
    Made.name = name
    Made(data_dir=sys.argv[1], config=config, file_format="array_record").download_and_prepare()
pair = {"label": F.ClassLabel(names=["entailment", "not_entailment"]), "idx": F.Scalar(np.int32)}
letters = F.ClassLabel(names=list("ABCDE"))
store("glue", "rte", {"sentence1": F.Text(), "sentence2": F.Text(), **pair},
    {"validation": [{"sentence1": "Ä dog.", "sentence2": "A cat.", "label": 1, "idx": 0}]})
store("glue", "mnli", {"premise": F.Text(), "hypothesis": F.Text(), "idx": F.Scalar(np.int32),
    "label": F.ClassLabel(names=["entailment", "neutral", "contradiction"])},
    {"validation_matched": [{"premise": "p", "hypothesis": "h", "label": 1, "idx": 0}],
     "validation_mismatched": [{"premise": "p", "hypothesis": "h", "label": 2, "idx": 0}]})
store("anli", "r3", {"uid": F.Text(), "context": F.Text(), "hypothesis": F.Text(),
    "label": F.ClassLabel(names=["e", "n", "c"])}, {"test": [{"uid": "u", "context": "c", "hypothesis": "h", "label": 2}]})
store("ai2_arc", "ARC-Challenge", {"answerKey": letters, "id": F.Text(), "question": F.Text(),
    "choices": F.Sequence({"label": letters, "text": F.Text()})}, {"test": [{"answerKey": 1, "id": "m", "question": "q?",
    "choices": {"label": [0, 1, 2], "text": ["x", "y", "z"]}}]})
store("openbookqa", None, {"answerKey": F.ClassLabel(names=list("ABCD")), "fact1": F.Text(), "question": F.FeaturesDict(
    {"stem": F.Text(), **{f"choice_{c}": F.Text() for c in "ABCD"}})}, {"test": [{"answerKey": 3, "fact1": "f",
    "question": {"stem": "q?", "choice_A": "w", "choice_B": "x", "choice_C": "y", "choice_D": "z"}}]})
store("drop", None, {"passage": F.Text(), "question": F.Text(), "answer": F.Text(), "query_id": F.Text(),
    "validated_answers": F.Sequence(F.Text())}, {"dev": [{"passage": "p", "question": "q", "answer": "3", "query_id": "1",
    "validated_answers": ["3", "three"]}]})
"""
READ = """
import json, sys
from lmsi_jax.tasks.config import DataConfig
from lmsi_jax.tasks.sources import question_source
found = {}
for name in ("rte", "mnli_m", "mnli_mm", "anli_a3", "arc_challenge", "openbookqa", "drop"):
    row = question_source(DataConfig(task=name, source="tfds", folder=sys.argv[1])).held_out(0)[0]
    found[name] = [row["question"], row["choices"], row["answer"], row.get("answers")]
assert not {"tensorflow", "jax"} & sys.modules.keys()
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """TFDS data sets of one row, prepared as ArrayRecord in the layout and with the features that TFDS gives them."""
    folder = tmp_path_factory.mktemp("tfds")
    subprocess.run([sys.executable, "-c", PREPARED, folder], check=True, capture_output=True)
    return folder


def test_tensorflow_datasets_without_tensorflow(prepared):
    """Catches: a loader that needs TensorFlow; class numbers read as other labels; bytes taken for text."""
    done = subprocess.run([sys.executable, "-c", READ, prepared], capture_output=True, text=True, check=True)
    ask = "Premise: {}\nHypothesis: {}\nBased on the premise, is the hypothesis true?".format
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "rte": [ask("Ä dog.", "A cat."), None, "no", None],
        "mnli_m": [ask("p", "h"), None, "unknown", None],
        "mnli_mm": [ask("p", "h"), None, "no", None],
        "anli_a3": [ask("c", "h"), None, "no", None],
        "arc_challenge": ["q?", ["x", "y", "z"], "B", None],
        "openbookqa": ["q?", ["w", "x", "y", "z"], "D", None],
        "drop": ["Passage: p\nQuestion: q", None, "3", ["3", "three"]],
    }


def test_tfds_sets_that_are_not_prepared(prepared, tmp_path):
    """Catches: a traceback, or a download, where a sentence would do."""
    with pytest.raises(UserError, match=r"openbookqa does not exist(?s:.*)tfds build openbookqa --file_format=array_record"):
        load_split(DATASETS["openbookqa"], "test", "tfds", str(tmp_path))
    with pytest.raises(UserError, match="has the splits dev, and not 'train'"):
        load_split(DATASETS["drop"], "train", "tfds", str(prepared))


def test_odd_files_of_data_sets_are_errors_that_name_them(tmp_path):
    """Catches: a traceback for deep JSON or a huge number; a cell beyond the header that is dropped without a word."""
    file = epath.Path(tmp_path) / "rows"
    file.write_text("[" * 200_000)
    with pytest.raises(UserError, match="rows: not valid JSON"):
        list(json_list(file))
    file.write_bytes(b"\xef\xbb\xbf" + b'[{"n": 1}]')
    assert [row.fields for row in json_list(file)] == [{"n": 1}]
    with pytest.raises(BadRow, match="the field `n` is 1000"):
        Row({"n": 10**400}, "here").number("n")
    file.write_text("index\tsentence\n0\ta\tb\n")
    with pytest.raises(BadRow, match="rows line 2 has 3 cells under 2 names: the field `sentence` is missing"):
        next(tab_separated(file)).text("sentence")

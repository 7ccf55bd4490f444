"""Near copies of texts and of questions: what is found, what is not, and what the command writes."""

import json
import random
import re
import string

import pytest
from etils import epath
from hypothesis import given, settings
from hypothesis import strategies as st

from lmsi_jax.cli.main import main
from lmsi_jax.core.records import read_jsonl, write_jsonl
from lmsi_jax.stages.prepare import PrepareSettings, run_prepare
from lmsi_jax.stages.pretrain import CorpusSettings, run_corpus
from lmsi_jax.tasks.config import CorpusConfig, QuestionConfig
from lmsi_jax.tasks.near_copies import near_copies
from lmsi_jax.tasks.similarity import jaccard, trigrams
from lmsi_jax.tasks.word_problems import FAMILIES, NAMES, make_problem


def words(rng, count):
    return ["".join(rng.choices(string.ascii_lowercase, k=6)) for _ in range(count)]


def with_similarity(rng, text, share):
    """A text of other last words, whose similarity to the first is about `share`: of n trigrams each k are in both."""
    old, n = text.split(), len(text.split()) - 2
    common = round(2 * n * share / (1 + share))
    return " ".join([*old[: common + 2], *words(rng, n - common)])


@pytest.mark.parametrize(("share", "least", "most"), [(0.9, 0.99, 1.0), (0.3, 0.0, 0.01)])
def test_copies_are_found_by_their_similarity(share, least, most):
    """Catches: too few bands, a threshold of the estimate, a text that is left out because of one that is gone itself."""
    rng = random.Random(0)
    texts = [" ".join(words(rng, 42)) for _ in range(600)]
    planted = [with_similarity(rng, text, share) for text in texts[:300]]
    assert jaccard(trigrams(texts[0]), trigrams(planted[0])) == pytest.approx(share, abs=0.03)
    found = near_copies([*texts, *planted], 0.8)
    assert all(copy.text >= 600 and copy.of == copy.text - 600 for copy in found)
    assert least <= len(found) / 300 <= most


def renamed(rng, question):
    """The same problem about other people."""
    given_names = [name for name in NAMES if re.search(rf"\b{name}\b", question)]
    others = rng.sample([name for name in NAMES if name not in given_names], len(given_names))
    table = dict(zip(given_names, others, strict=True))
    return re.sub(r"\w+", lambda match: table.get(match[0], match[0]), question)


def renumbered(question):
    return re.sub(r"\d+", lambda match: str(int(match[0]) + 1000), question)


def test_questions_are_copies_only_with_the_same_numbers():
    """Catches: another problem in the same words that is left out, and the same problem about other people that stays."""
    rng = random.Random(1)
    questions = list(dict.fromkeys(make_problem(rng, (3, 5), 199).question for _ in range(3000)))
    some = rng.sample([question for question in questions if renamed(rng, question) != question], 300)
    same, different = [renamed(rng, question) for question in some], [renumbered(question) for question in some]
    found = near_copies([*questions, *same, *different], 0.5, "question")
    n = len(questions)
    recalled = sum(n <= copy.text < n + 300 for copy in found) / 300
    wrong = [copy for copy in found if not n <= copy.text < n + 300]
    assert recalled >= 0.98 and len(wrong) <= 0.02 * len(found), (recalled, len(wrong))
    assert not any(copy.text >= n + 300 for copy in found)


def test_copies_and_long_runs_of_another_file_are_left_out():
    """Catches: held-out texts that stay in the corpus, also within a longer text; runs of words that are compared by case."""
    rng = random.Random(2)
    held_out = " ".join(words(rng, 30))
    longer = " ".join([*words(rng, 90), *held_out.upper().split()[5:18], *words(rng, 90)])
    shorter = " ".join([*words(rng, 90), *held_out.split()[5:17], *words(rng, 90)])
    found = near_copies([longer, shorter, held_out + " end", "a b c"], 0.8, others=["other", held_out])
    assert [(copy.text, copy.of, copy.of_other, copy.reason) for copy in found] == [(0, 1, True, "span"), (2, 1, True, "near")]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(alphabet="ab 12", max_size=12), max_size=12), st.sampled_from(["text", "question"]), st.floats(0.3, 1))
def test_what_stays_has_no_exact_copy_and_what_goes_has_an_original(texts, kind, threshold):
    """Catches: both of two copies that are left out, an equal text that stays."""
    found = near_copies(texts, threshold, kind)
    gone = {copy.text for copy in found}
    assert all(copy.of < copy.text and copy.of not in gone and copy.similarity >= threshold for copy in found)
    stay = [text for i, text in enumerate(texts) if i not in gone]
    assert len(set(stay)) == len(stay)


def test_questions_of_a_run_lose_their_copies(tmp_path):
    """Catches: a setting without an effect, a held-out question that is trained on in other names, a leak of an exemplar."""
    asked = [
        "Tom has 3 red cows. How many?",
        "Ann has 3 red cows. How many?",
        "Tom has 4 red cows. How many?",
        "Bob has 9 hats.",
    ]
    write_jsonl(tmp_path / "train.jsonl", [{"id": f"t{i}", "question": text} for i, text in enumerate(asked)])
    write_jsonl(tmp_path / "test.jsonl", [{"id": "e0", "question": "Eva has 4 red cows. How many?", "answer": "4"},
                                          {"id": "e1", "question": "Is this shown?", "answer": "1"}])  # fmt: skip
    source = QuestionConfig(
        "jsonl", questions=f"{tmp_path}/train.jsonl", eval_questions=f"{tmp_path}/test.jsonl", near_copies=0.5
    )
    outputs = {name: epath.Path(tmp_path) / f"{name}.out" for name in ("questions", "gold", "held_out", "leaks", "copies")}
    run_prepare(None, PrepareSettings(0, source, ("Is this shown?",)), {}, outputs)
    assert [row["id"] for row in read_jsonl(outputs["questions"])] == ["t0", "t3"]
    assert [(row["id"], row["like"]) for row in read_jsonl(outputs["copies"])] == [("t1", "t0"), ("t2", "e0")]
    assert [(row["id"], row["training_id"]) for row in read_jsonl(outputs["leaks"])] == [("e1", "exemplar 1")]


def test_a_corpus_loses_its_copies(tmp_path):
    """Catches: held-out documents that are left out in place of the training documents, a count that is of all documents."""
    corpus = CorpusConfig(documents=400, terms=(2, 2), largest=9, families=FAMILIES[:1])
    counts = []
    for threshold in (0.0, 0.4):
        outputs = {name: epath.Path(tmp_path) / f"{threshold}-{name}.jsonl" for name in ("train", "held_out")}
        run_corpus(None, CorpusSettings(0, corpus, 50, threshold), {}, outputs, None)
        counts.append((len(list(read_jsonl(outputs["train"]))), len(list(read_jsonl(outputs["held_out"])))))
    assert counts[0] == (400, 50) and counts[1][0] < 400 and counts[1][1] == 50


def lmsi(*arguments):
    with pytest.raises(SystemExit) as ended:
        main(["lmsi", *map(str, arguments)])
    return ended.value.code


def test_the_command_keeps_rows_as_they_are(tmp_path, capsys):
    """Catches: fields that are lost, a copy without its original, a row without a text that is skipped in silence."""
    texts = ["one two three four five", "other words are in here", "One two three, four five!", "held out text of words"]
    write_jsonl(tmp_path / "in.jsonl", [{"id": i, "text": text, "more": [i]} for i, text in enumerate(texts)])
    write_jsonl(tmp_path / "held.jsonl", [{"text": "held out text of words"}])
    files = (f"--input={tmp_path}/in.jsonl", f"--output={tmp_path}/out.jsonl", f"--copies={tmp_path}/copies.jsonl")
    assert lmsi("dedup", *files, f"--against={tmp_path}/held.jsonl") == 0
    assert "2 of 4 rows stay; 2 are near copies" in capsys.readouterr().out
    assert list(read_jsonl(tmp_path / "out.jsonl")) == [{"id": i, "text": texts[i], "more": [i]} for i in (0, 1)]
    first, second = read_jsonl(tmp_path / "copies.jsonl")
    assert first["id"] == 2 and first["copy"] == {"row": 1, "similarity": 1.0, "reason": "near"}
    assert second["copy"]["file"].endswith("held.jsonl")
    assert lmsi("dedup", *files) == 2 and "exists; nothing was overwritten" in capsys.readouterr().err
    (tmp_path / "bad.jsonl").write_text(json.dumps({"text": "a"}) + "\n" + json.dumps({"question": "b"}) + "\n")
    assert lmsi("dedup", f"--input={tmp_path}/bad.jsonl", f"--output={tmp_path}/x.jsonl") == 2
    assert "bad.jsonl line 2: there is no text in 'text'; the fields are question" in capsys.readouterr().err
    (tmp_path / "bad.jsonl").write_text('{"text": 3}\n')
    assert lmsi("dedup", f"--input={tmp_path}/bad.jsonl", f"--output={tmp_path}/x.jsonl") == 2
    assert "bad.jsonl line 1: 'text' is 3, and must be text" in capsys.readouterr().err
    assert lmsi("dedup", *files, "--overwrite", "--threshold=0") == 2
    assert lmsi("dedup", *files, "--overwrite", "--kind=texts") == 2

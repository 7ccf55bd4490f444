import random
import re
from pathlib import Path

import pytest

from lmsi_jax.answers.extract import Answer, canonical, extract
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.records import write_jsonl
from lmsi_jax.formatting.prompts import Prompts
from lmsi_jax.tasks.config import CorpusConfig, DataConfig
from lmsi_jax.tasks.prompts import check_stops, few_shot
from lmsi_jax.tasks.questions import load_questions
from lmsi_jax.tasks.sets import DATASETS
from lmsi_jax.tasks.sources import question_source
from lmsi_jax.tasks.task import EXEMPLARS, load_exemplars, load_task
from lmsi_jax.tasks.word_corpus import documents
from lmsi_jax.tasks.word_problems import FAMILIES, STYLES, make_problem, make_solution

GOLDEN = Path(__file__).parent / "golden"
FILES = {
    **{name: name for name in ("number", "choice", "yes_no", "math")},
    **{"word_problems": "number", "text": "text"},
    **{dataset.exemplars: dataset.answer_type for dataset in DATASETS.values()},
}


@pytest.mark.parametrize(("name", "answer_type"), FILES.items())
def test_exemplars_are_right(name, answer_type):
    """Catches: a wrong calculation or answer in a prompt that every question sees."""
    items = load_exemplars(EXEMPLARS / f"{name}.jsonl", answer_type)
    assert 4 <= len(items) <= 8 or name in ("word_problems", "text")  # for small models: a short prompt
    for item in items:
        text = item.reasoning
        calculations = re.findall(r"([\d.]+(?: [-+*/] [\d.]+)+) = ([\d.]+\d|\d)", text)
        for left, right in calculations:
            assert eval(left) == pytest.approx(float(right)), text
        assert text.count(" = ") == len(calculations) or answer_type == "math", text
        for reasoning in (True, False):
            solution = few_shot([item], answer_type, reasoning=reasoning).rpartition("\nA:")[2]
            assert extract(solution, answer_type) == Answer(canonical(item.answer, answer_type))
        if answer_type == "choice":
            assert item.choices[ord(item.answer) - ord("A")]
        if answer_type == "number":
            assert item.answer in re.findall(r"[\d.]*\d", text)[-3:], text


def test_answers_are_spread_over_the_options():
    """Catches: a prompt that teaches a letter, or always yes."""
    for name, answer_type in FILES.items():
        if answer_type in ("choice", "yes_no"):
            said = [item.answer for item in load_exemplars(EXEMPLARS / f"{name}.jsonl", answer_type)]
            assert max(map(said.count, said)) <= len(said) / 2, name


@pytest.mark.parametrize("name", ["word_problems", *DATASETS])
def test_prompts_are_those_that_were_proof_read(name):
    """Catches: a changed exemplar or layout, which changes every score; `lmsi prompt --task=... --format=...` prints them."""
    task = load_task(DataConfig(task=name))
    file = DATASETS[name].exemplars if name in DATASETS else name
    for style in ("cot", "direct"):
        prompt = Prompts.of(task).render(f"few_shot_{style}", "...")
        assert prompt == (GOLDEN / f"{file}.{style}.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("style", STYLES)
def test_solutions_without_mistakes_are_right(style):
    """Catches: a style whose steps do not lead to the answer."""
    for seed in range(300):
        rng = random.Random(seed)
        problem = make_problem(rng, (2, 7), 99)
        text, answer = make_solution(rng, problem, style)
        assert answer == problem.answer
        assert re.findall(r"\d+", text)[-1] == str(answer)
        for left, right in re.findall(r"(\d+(?: [-+*] \d+)+) = (-?\d+)", text):
            assert eval(left) == int(right), text


def test_problems_state_every_quantity_once():
    """Catches: a problem that cannot be solved from its text, or names that are told apart by nothing."""
    for seed in range(500):
        problem = make_problem(random.Random(seed), (2, 8), 99)
        numbers = [n for t in problem.terms for n in (t.factors or (t.value,))]
        assert sorted(map(int, re.findall(r"\d+", problem.question))) == sorted(numbers)
        names = [term.name for term in problem.terms]
        assert len(set(names)) == len(names), problem.question


def test_mistakes_are_as_frequent_as_told():
    """Catches: sloppy writers that never slip, or always do."""
    wrong = 0
    for seed in range(400):
        rng = random.Random(seed)
        problem = make_problem(rng, (2, 5), 99)
        wrong += make_solution(rng, problem, "equations", mistake=True)[1] != problem.answer
    assert wrong > 380


def test_documents_are_a_function_of_seed_and_number():
    """Catches: a corpus that cannot be made again."""
    config = CorpusConfig(documents=20)
    assert list(documents(config, 1)) == list(documents(config, 1))
    assert list(documents(config, 1)) != list(documents(config, 2))


def test_a_corpus_may_lack_an_operation():
    """Catches: a family that is left out and comes back in documents of suggestions; a name that nobody has."""
    families = tuple(name for name in FAMILIES if name != "boxes")
    for suggestions in (0.0, 1.0):
        whole, lacking = (
            "".join(documents(CorpusConfig(documents=200, suggestions=suggestions, families=each), 0))
            for each in (FAMILIES, families)
        )
        assert " boxes of " in whole and " boxes of " not in lacking
    with pytest.raises(UserError, match="corpus.families"):
        CorpusConfig(families=("circles",)).check("corpus.")


def test_train_and_held_out_questions_are_apart_and_keep_their_numbering():
    """Catches: evaluation on questions that were trained on; question 3 that changes when more are asked for."""
    config = DataConfig(num_questions=300, num_eval=300)
    source = question_source(config)
    train, held_out = source.training(0), source.held_out(0)
    assert not {q["question"] for q in train} & {q["question"] for q in held_out}
    assert question_source(DataConfig(num_questions=5, num_eval=1)).training(0) == train[:5]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "holds no questions"),
        ([{"id": "a", "question": "x"}, {"id": "a", "question": "y"}], "row 2: the id 'a' is that of row 1 too"),
        ([{"id": "a", "text": "x"}], "row 1: no text in the field `question`; it has id, text"),
        ([{"id": "a", "question": " "}], "no text in the field `question`"),
        ([{"id": 3, "question": "x"}], "`id` is 3; it must be a string"),
        ([{"id": "a", "question": "x", "choices": ["one"]}], "`choices` must be null or a list"),
    ],
)
def test_malformed_question_files(tmp_path, rows, message):
    """Catches: a bad row that is dropped or crashes a run hours later."""
    write_jsonl(tmp_path / "q.jsonl", rows)
    with pytest.raises(UserError, match=re.escape(message)):
        load_questions(tmp_path / "q.jsonl")


def test_held_out_answers_must_be_of_the_type(tmp_path):
    """Catches: a score of zero because the gold answers could not be read."""
    write_jsonl(tmp_path / "q.jsonl", [{"id": "a", "question": "x", "answer": "yes"}])
    config = DataConfig(task="jsonl", questions="q", eval_questions=str(tmp_path / "q.jsonl"), answer_type="number")
    with pytest.raises(UserError, match="question 'a' has the answer 'yes', which is not of type 'number'"):
        question_source(config).held_out(0)


def test_stop_strings_inside_exemplars_are_refused():
    """Catches: the stop list that cuts every answer, so that accuracy is near zero."""
    task = load_task(DataConfig(num_questions=1, num_eval=1))
    check_stops(task.exemplars, ("\n\n", "\nQ:"), "number")
    with pytest.raises(UserError, match=r"stop string '\. The'"):
        check_stops(task.exemplars, (". The",), "number")

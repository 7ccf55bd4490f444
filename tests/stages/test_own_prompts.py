"""Questions and exemplars that a model writes itself, as stages on files; a stand-in writes what the model would."""

import pytest
from etils import epath

from lmsi_jax.answers.reader import AnswerReader
from lmsi_jax.benchmarks.workloads import Ids
from lmsi_jax.checkpoint.config import Numerics
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.records import read_jsonl, write_jsonl
from lmsi_jax.decoding.config import Batching, EndpointConfig, Sampling
from lmsi_jax.decoding.scheduler import Request
from lmsi_jax.formatting.config import FormatConfig
from lmsi_jax.formatting.examples import tokenize
from lmsi_jax.formatting.prompts import Chat, Prompts
from lmsi_jax.pipeline.runtime import Runtime
from lmsi_jax.sharding.config import MeshConfig
from lmsi_jax.stages import exemplars, propose, spread, templates
from lmsi_jax.stages.decode import Decoding, Job
from lmsi_jax.stages.exemplars import ExemplarSettings, exemplar, run_exemplars
from lmsi_jax.stages.format import FormatSettings, run_format
from lmsi_jax.stages.propose import AgreementSettings, ProposeSettings, run_agreement, run_propose
from lmsi_jax.stages.templates import load_templates
from lmsi_jax.stages.vote import VoteSettings, run_vote
from lmsi_jax.tasks.config import ProposeConfig, QuestionConfig
from lmsi_jax.voting.config import SelectConfig, VoteConfig
from tests.conftest import mesh_of

READER = AnswerReader("number")
ZERO_SHOT = Prompts("", "", zero_shot=True)


class NoModel(Runtime):
    """Two devices, and a checkpoint of which only the tokenizer is asked for its control tokens: it has none."""

    def tokenizer(self, checkpoint, *, control=False):
        return Ids(10)


RUNTIME = NoModel(MeshConfig(), epath.Path("metrics"))
RUNTIME.__dict__["mesh"] = mesh_of(2, 1, 1)


def decoding(prompts=ZERO_SHOT, paths=8):
    return Decoding(
        seed=0,
        stream=("test",),
        prompts=prompts,
        numerics=Numerics(cache_dtype="compute", sum_dtype="compute"),
        sampling=Sampling(paths=paths, stops=("\n\n",)),
    )


class Writer:
    """Stands in for the model: `text` maps (job, request, path number) to what it writes."""

    def __init__(self, text, finish="stop"):
        self.text, self.finish, self.jobs = text, finish, []

    def __call__(self, runtime, job, engine, endpoint):
        self.jobs.append(job)
        drawn = range(job.decoding.sampling.paths)
        rows = [(r, p, self.text(job, r, p)) for r in job.requests for p in drawn]
        write_jsonl(job.output, ({"id": r.id, "path": p, "text": text, "finish": self.finish} for r, p, text in rows))


def files(tmp_path, *names):
    return {name: epath.Path(tmp_path) / f"{name}.jsonl" for name in names}


def questions(count):
    return [
        {"id": f"q{i}", "question": f"Tom has {i} nuts and Ann has {i + 7}. How many?", "choices": None} for i in range(count)
    ]


def proposed(
    tmp_path, monkeypatch, text, given=3, finish="stop", prompts=ZERO_SHOT, api="completions", engine="mesh", **options
):
    writer = Writer(text, finish)
    monkeypatch.setattr(propose, "run_job", writer)
    inputs, outputs = (
        files(tmp_path, *names) for names in (("given", "held_out", "model"), ("written", "questions", "gold", "leaks"))
    )
    write_jsonl(inputs["given"], questions(given))
    write_jsonl(inputs["held_out"], [{"id": "h", "question": "Eva has 2 nuts and Max has 9. How many?", "choices": None}])
    settings = ProposeSettings(
        decoding(prompts),
        QuestionConfig(source="self"),
        ProposeConfig(**{"proposals": 6, "shown": 2, **options}),
        engine,
        EndpointConfig(api=api, model="m"),
    )
    run_propose(RUNTIME, settings, inputs, outputs, epath.Path(tmp_path))
    return writer.jobs, {name: list(read_jsonl(file)) for name, file in outputs.items()}


def test_all_proposals_are_kept_with_the_reason_and_the_good_ones_are_questions(tmp_path, monkeypatch):
    """Catches: a refused proposal that is lost or trained on; a later pass that does not see the kept ones of the earlier."""
    texts = [
        " Tom has 5 beads. Ann gives Tom 4 more. How many beads does Tom have now?",
        " Eva has 2 nuts and Max has 9. How many?",
        " Tom has 0 nuts and Ann has 7. How many?",
        " It is 7. The answer is 7.",
        " How many",
        " A farm sold 99 red boats. How many boats is that?",
    ]

    def text(job, request, path):
        number = int(request.id.removeprefix("proposal-"))
        return texts[number] if number < 6 else f" In pass two {number} cows met {number} pigs. How many {'x' * number}?"

    jobs, made = proposed(tmp_path, monkeypatch, text, passes=2)
    reasons = [row["reason"] for row in made["written"]]
    assert reasons[:6] == [None, "like_held_out", "like_given", "answered", "no_question", None] and len(reasons) == 12
    kept = [row for row in made["written"] if row["reason"] is None]
    assert made["questions"] == [{key: row[key] for key in ("id", "question", "choices")} for row in kept]
    assert made["gold"] == [{"id": "proposal-00000", "answer": "9", "answers": ["9"]}], "what a program can solve, and no more"
    assert made["leaks"] == []
    assert {row["pass"] for row in made["written"]} == {1, 2} and len(jobs) == 2
    assert all(len(row["shown"]) == 2 for row in made["written"])
    assert not any(id.startswith("proposal") for row in made["written"][:6] for id in row["shown"])
    assert all(sum(id.startswith("proposal") for id in row["shown"]) == 1 for row in made["written"][6:])
    assert jobs[0].decoding.sampling.paths == 1 and jobs[0].decoding.sampling.temperature == 1.0
    assert all(request.text.endswith("\n\nQ:") for request in jobs[0].requests)


def test_a_chat_model_is_asked_for_a_question(tmp_path, monkeypatch):
    """Catches: a chat model, here or on a server, that is given a list to go on with and answers it."""
    text = lambda job, request, path: f" Bob sold {request.id[-1]} cows and some {request.id[-1] * 3} pigs. How many?"  # noqa: E731
    chat = Prompts("", "", Chat("<u>", "<u>", "<a>", "", ""), zero_shot=True)
    jobs, _ = proposed(tmp_path, monkeypatch, text, prompts=chat)
    assert jobs[0].prefix == "<u>" and all(r.text.endswith("Write only the question.<a>") for r in jobs[0].requests)
    jobs, _ = proposed(tmp_path, monkeypatch, text, engine="openai", api="chat")
    assert all(r.text.endswith("Write only the question.") for r in jobs[0].requests) and not jobs[0].decoding.sampling.stops


def test_what_cannot_give_questions_is_refused(tmp_path, monkeypatch):
    """Catches: a run on nothing, or an error that does not say why all proposals were refused."""
    good = lambda job, request, path: f" Bob sold {request.id[-1]} cows and some {request.id[-1] * 3} pigs. How many?"  # noqa: E731
    for given in (0, 1):
        with pytest.raises(UserError, match=f"at least two questions, or from a description of the task, and {given} question"):
            proposed(tmp_path, monkeypatch, good, given=given)
    jobs, made = proposed(tmp_path, monkeypatch, good, given=0, description="Sums of animals.")
    assert len(made["questions"]) == 6 and jobs[0].requests[0].text == "Sums of animals.\n\nQ:"
    with pytest.raises(UserError, match="None of 6 proposals is kept.*6 no_question.*The first one is 'the the'"):
        proposed(tmp_path, monkeypatch, lambda job, request, path: " the the")
    with pytest.raises(UserError, match="6 cut_off"):
        proposed(tmp_path, monkeypatch, good, finish="length")


def test_agreement_marks_what_the_vote_refuses(tmp_path):
    """Catches: a proposals.jsonl that says a question is trained on when its vote has too small a share."""
    inputs, outputs = files(tmp_path, "written", "votes"), files(tmp_path, "proposals")
    write_jsonl(
        inputs["written"], [{"id": "a", "reason": None}, {"id": "b", "reason": None}, {"id": "c", "reason": "answered"}]
    )
    vote = {"paths_hash": "", "answers": ["7"], "kept": [0], "abstained": []}
    write_jsonl(
        inputs["votes"], [{"id": id, "answer": "7", "confidence": share, **vote} for id, share in (("a", 0.5), ("b", 0.1))]
    )
    run_agreement(None, AgreementSettings(0.25), inputs, outputs)
    assert [row["reason"] for row in read_jsonl(outputs["proposals"])] == [None, "no_agreement", "answered"]


def made_exemplars(tmp_path, monkeypatch, text, count=20, **sizes):
    writer = Writer(text)
    monkeypatch.setattr(exemplars, "run_job", writer)
    inputs, outputs = files(tmp_path, "questions", "model"), files(tmp_path, "exemplars")
    write_jsonl(inputs["questions"], questions(count))
    sizes = {"templates": 3, "shots": 2, **sizes}
    settings = ExemplarSettings(decoding(), READER, engine="mesh", endpoint=EndpointConfig(), **sizes)
    run_exemplars(RUNTIME, settings, inputs, outputs, epath.Path(tmp_path))
    return writer.jobs, list(read_jsonl(outputs["exemplars"]))


def test_exemplars_are_the_models_own_solutions(tmp_path, monkeypatch):
    """Catches: reasoning with its conclusion twice, a solution without an answer, exemplars of one template in another."""

    def text(job, request, path):
        number = int(request.id[1:])
        return (
            " I do not know."
            if number % 4 == 0
            else f" {number} and {number + 7} make {2 * number + 7}. The answer is {2 * number + 7}."
        )

    jobs, rows = made_exemplars(tmp_path, monkeypatch, text)
    assert [row["template"] for row in rows] == [0, 0, 1, 1, 2, 2] and len({row["id"] for row in rows}) == 6
    for row in rows:
        number = int(row["id"][1:])
        assert row["reasoning"] == f"{number} and {number + 7} make {2 * number + 7}." and row["answer"] == str(2 * number + 7)
    assert all(request.text.endswith("A: Let's think step by step.") for request in jobs[0].requests)
    assert jobs[0].decoding.sampling.temperature == 0 and len(jobs[0].requests) == 12
    with pytest.raises(UserError, match="3 templates of 2 exemplars need 6 solutions, and .* for 0 of 12 questions"):
        made_exemplars(tmp_path, monkeypatch, lambda job, request, path: " I do not know.")


@pytest.mark.parametrize(
    ("text", "reasoning"),
    [
        (" 2 + 3 = 5. The answer is 5.", "2 + 3 = 5."),
        (" 2 + 3 = 5. So the answer is 5.", "2 + 3 = 5."),
        (" 2 + 3 = 5. Therefore, the final answer is 5.", "2 + 3 = 5."),
        ("<think>Hm.</think> 2 + 3 = 5.\n**Answer:** 5", "2 + 3 = 5."),
        (" The answer is 5.", None),
    ],
)
def test_an_exemplar_concludes_once(text, reasoning):
    """Catches: a solution that concludes twice in the prompt, or that has no reasoning; thoughts in a prompt."""
    row = exemplar({"id": "a", "question": "2 + 3?", "choices": None}, {"text": text, "finish": "stop"}, READER)
    assert (row and row["reasoning"]) == reasoning


def test_paths_are_spread_over_templates_and_trained_with_their_own(tmp_path, monkeypatch, tokenizer):
    """Catches: paths lost or numbered twice, a question whose own solution is in its prompt, another template's rows."""
    solved = lambda job, request, path: f" So {request.id[1:]} it is. The answer is {request.id[1:]}."  # noqa: E731
    _, rows = made_exemplars(tmp_path, monkeypatch, solved, count=8)
    inputs = files(tmp_path, "questions", "exemplars", "paths", "votes")
    loaded = load_templates(inputs, ZERO_SHOT, "number")
    assert [len(template.asked) for template in loaded] == [2, 2, 2] and not any(t.prompts.zero_shot for t in loaded)
    writer = Writer(lambda job, request, path: f" {job.prefix.count('Q:')} {path}. The answer is {request.id[1:]}.")
    monkeypatch.setattr(spread, "run_job", writer)
    job = Job(
        decoding=decoding(loaded[0].prompts),
        batching=Batching(lanes=4, slots=8),
        prefix=loaded[0].prompts.cot_examples,
        requests=[Request(f"q{i}") for i in range(8)],
        checkpoint=epath.Path(tmp_path),
        output=inputs["paths"],
        scratch=epath.Path(tmp_path),
    )
    spread.spread(RUNTIME, job, loaded, inputs["questions"], "mesh", EndpointConfig())
    assert [each.decoding.sampling.paths for each in writer.jobs] == [3, 3, 2]
    assert [(each.batching.lanes, each.batching.slots) for each in writer.jobs] == [(10, 3), (10, 3), (16, 2)]
    assert len({each.decoding.stream for each in writer.jobs}) == 3
    paths = list(read_jsonl(inputs["paths"]))
    asked = {row["question"]: row["id"] for row in questions(8)}
    own = {asked[text]: number for number, template in enumerate(loaded) for text in template.asked}
    assert len({each.scratch for each in writer.jobs}) == 3, "a server's replies of one template are not those of another"
    numbers = {0: [0, 3, 6], 1: [1, 4, 7], 2: [2, 5]}
    for id in [f"q{i}" for i in range(8)]:
        wanted = sorted((path, t) for t in numbers if own.get(id) != t for path in numbers[t])
        assert [(row["path"], row["template"]) for row in paths if row["id"] == id] == wanted
    run_vote(None, VoteSettings(READER, VoteConfig()), inputs, {"votes": inputs["votes"]})
    settings = FormatSettings(0, READER, ZERO_SHOT, SelectConfig(), FormatConfig())
    run_format(None, settings, inputs, files(tmp_path, "examples"))
    examples = list(read_jsonl(files(tmp_path, "examples")["examples"]))
    for row in examples:
        prompts, few_shot = loaded[row["template"]].prompts, row["format"].startswith("few")
        before = prompts.cot_examples if row["format"] == "few_shot_cot" else prompts.direct_examples
        assert row["template"] == next(t for t in numbers if row["path"] in numbers[t])
        assert row["prompt"].startswith(before) if few_shot else "Q:" not in row["prompt"][2:]
    assert len({piece.group for piece in tokenize(examples, tokenizer)}) == 12, (
        "each template's exemplars are shared by its rows"
    )


def test_one_path_takes_the_first_template(tmp_path, monkeypatch):
    """Catches: greedy decoding that is spread or has another stream; a question whose solution is in its only prompt."""
    writer = Writer(lambda job, request, path: " The answer is 1.")
    monkeypatch.setattr(spread, "run_job", writer)
    rows, file = questions(2), epath.Path(tmp_path) / "questions.jsonl"
    write_jsonl(file, rows)
    job = Job(
        decoding=decoding(paths=1),
        batching=Batching(),
        prefix="",
        requests=[Request("q0"), Request("q1")],
        checkpoint=epath.Path(tmp_path),
        output=epath.Path(tmp_path) / "paths.jsonl",
        scratch=epath.Path(tmp_path),
    )
    first, both = (templates.Template(ZERO_SHOT, frozenset(row["question"] for row in rows[:n])) for n in (1, 2))
    spread.spread(RUNTIME, job, [templates.Template(ZERO_SHOT, frozenset())] * 3, file, "mesh", EndpointConfig())
    assert writer.jobs == [job]
    spread.spread(RUNTIME, job, [first] * 3, file, "mesh", EndpointConfig())
    assert writer.jobs[1].requests == [Request("q1")] and writer.jobs[1].decoding == job.decoding
    with pytest.raises(UserError, match="All 2 questions are exemplars of every template"):
        spread.spread(RUNTIME, job, [both] * 3, file, "mesh", EndpointConfig())

"""A run folder with votes and steps, made by the real stages from written paths."""

import random

from etils import epath

from lmsi_jax.answers.reader import AnswerReader
from lmsi_jax.core.files import write_text
from lmsi_jax.core.records import write_jsonl
from lmsi_jax.pipeline.run_folder import RunFolder
from lmsi_jax.stages.steps import StepsSettings, run_steps
from lmsi_jax.stages.vote import VoteSettings, run_vote
from lmsi_jax.tasks.word_problems import STYLES, make_problem, make_solution
from lmsi_jax.voting.config import VoteConfig

GROUP, READER = "rounds/1", AnswerReader("number")


def make_run(root, questions=40, paths=8, extra=None) -> RunFolder:
    """Questions with sloppy paths. `extra` replaces the text of path 0 of the first question."""
    folder, rng = RunFolder(epath.Path(root)), random.Random(0)
    asked, sampled, gold = [], [], []
    for number in range(questions):
        id, problem = f"q{number:03d}", make_problem(rng, (2, 4), 99)
        asked.append({"id": id, "question": problem.question, "choices": None})
        gold.append({"id": id, "answer": str(problem.answer)})
        for path in range(paths):
            text, answer = make_solution(rng, problem, rng.choice(STYLES), rng.random() < 0.1 + 0.6 * (number % 3) / 2)
            text = f" {text} The answer is {answer}."
            sampled.append({"id": id, "path": path, "text": extra if extra and number == path == 0 else text})
    write_text(folder.config, '{"seed": 0}\n')
    write_jsonl(folder.questions, asked)
    write_jsonl(folder.gold, gold)
    write_jsonl(folder.paths(GROUP), sampled)
    inputs = {"questions": folder.questions, "paths": folder.paths(GROUP)}
    run_steps(None, StepsSettings(READER), inputs, {"steps": folder.steps(GROUP)})
    run_vote(None, VoteSettings(READER, VoteConfig()), inputs, {"votes": folder.votes(GROUP)})
    return folder

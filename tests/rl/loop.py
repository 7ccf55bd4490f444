"""Reinforcement learning of a small random model, in this process."""

import dataclasses

from etils import epath

from lmsi_jax.answers.reader import AnswerReader
from lmsi_jax.checkpoint.config import Numerics
from lmsi_jax.core.records import write_jsonl
from lmsi_jax.decoding.config import Batching, Sampling
from lmsi_jax.formatting.prompts import Prompts
from lmsi_jax.pipeline.runtime import Runtime
from lmsi_jax.rl.config import RlConfig
from lmsi_jax.sharding.config import MeshConfig
from lmsi_jax.stages.rl import RlSettings, run_rl
from lmsi_jax.training.config import UpdateConfig
from tests.conftest import mesh_of

NUMERICS = Numerics(cache_dtype="float32", sum_dtype="float32")
PREFIX = "Q: Tom has 3 cows. How many?\nA: The answer is 3.\n\n"
TRAIN = UpdateConfig(
    steps=4, row_length=64, learning_rate=0.02, schedule="constant", warmup=0, weight_decay=0.0, save_every=1, log_every=1
)
RL = RlConfig(questions=4, paths=8, rewards=("tests.rl.loop.letters",), advantage="dr_grpo", probes=4)


def letters(question, path):
    """The share of a text that is the letter e: easy to learn, and rarely all or nothing."""
    text = path["text"]
    return text.count("e") / max(len(text), 1)


def cows(question, path):
    """The number in a question: what a value can foresee before the first token of a path."""
    return float(question["question"].split()[2]) / 4


def settings(rl=RL, train=TRAIN, seed=0, max_tokens=8, reader="number"):
    sampling = Sampling(
        paths=rl.paths, temperature=rl.temperature, max_tokens=max_tokens, stops=("\n\n",), keep=("tokens", "logprobs")
    )
    prompts, batching = Prompts(PREFIX, PREFIX), Batching(lanes=8, slots=4, sync_every=4)
    return RlSettings(seed, NUMERICS, prompts, AnswerReader(reader), sampling, rl, batching, train)


def questions(folder, count=8):
    file = epath.Path(folder) / "questions.jsonl"
    if not file.exists():
        rows = [{"id": f"q{i}", "question": f"Ann has {i} cows. How many?", "choices": None} for i in range(count)]
        write_jsonl(file, rows)
    return file


def runtime_of(folder, mesh=(1, 1, 1)):
    runtime = Runtime(MeshConfig(*mesh), epath.Path(folder) / "metrics", "rl")
    runtime.__dict__["mesh"] = mesh_of(*mesh)  # of as many of this process's devices as it needs
    return runtime


def run(folder, checkpoint, wanted, mesh=(1, 1, 1), **more):
    """Run the stage; return the folder of its outputs: rollouts.jsonl and model."""
    folder = epath.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    inputs = {"questions": questions(folder), "model": epath.Path(checkpoint)}
    inputs |= {name: epath.Path(path) for name, path in more.items() if path}  # gold, reward_model
    outputs = {"trained": folder / "model", "rollouts": folder / "rollouts.jsonl", "guard": folder / "guard.json"}
    run_rl(runtime_of(folder, mesh), wanted, inputs, outputs, folder / "scratch")
    return folder


def other(config, **changes):
    return dataclasses.replace(config, **changes)

"""Seconds of a step of reinforcement learning: `python -m lmsi_jax.benchmarks.rl_step --peers`.

The model of workload S (6.4M parameters, random weights) samples 16 paths of 64 tokens for each of 16 questions, behind a
prompt of 256 tokens, 192 of them shared by all questions. A random reward gives advantages as in GRPO, and AdamW takes one
step. Prints one JSON line per figure: the median seconds of a step of the loop, those that its sampling and its training take
alone, and their share of the step. If trl is installed, `--peers` adds a step of its GRPOTrainer on the same shapes, and how
many times longer it takes.
"""

import argparse
import importlib.util
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import jax
from etils import epath

from lmsi_jax.answers.reader import AnswerReader
from lmsi_jax.benchmarks.decode import report
from lmsi_jax.benchmarks.peers import transformers_model
from lmsi_jax.benchmarks.workloads import WORKLOADS, Ids, Workload, prompts
from lmsi_jax.checkpoint.config import Numerics
from lmsi_jax.core.machine import seconds
from lmsi_jax.core.records import write_jsonl
from lmsi_jax.decoding.config import Batching, Sampling
from lmsi_jax.formatting.prompts import Prompts
from lmsi_jax.model import transformer
from lmsi_jax.pipeline.runtime import Model, Runtime
from lmsi_jax.rl.config import RlConfig
from lmsi_jax.rl.objective import policy_objective
from lmsi_jax.sharding.config import MeshConfig
from lmsi_jax.sharding.rules import use_mesh
from lmsi_jax.stages.finetune import training_run
from lmsi_jax.stages.rollouts import Rollouts, RolloutSettings
from lmsi_jax.training.config import UpdateConfig
from lmsi_jax.training.loop import train
from lmsi_jax.training.objective import Batch, place_batch
from lmsi_jax.training.step import init_state, make_step
from lmsi_jax.training.trainable import AllWeights

QUESTIONS, PATHS, TOKENS = 16, 16, 64
WARM_UP = 2  # steps that compile


class IdPrompts(Prompts):
    """Prompts that are token ids, without a layout."""

    def question(self, question: str, choices: Sequence[str] | None = None, *, reasoning: bool = True) -> str:
        return question


class Loop:
    """The loop of `lmsi rl` on a workload, with the instants at which it asks for a batch."""

    def __init__(self, runtime: Runtime, workload: Workload, steps: int, folder: epath.Path):
        self._runtime = runtime
        self._rl = RlConfig(questions=QUESTIONS, paths=PATHS, rewards=("random",), advantage="grpo")
        self._train = UpdateConfig(steps=steps, row_length=4 * TOKENS, warmup=0, save_every=steps + 1, log_every=1)
        shared, requests = prompts(workload, steps * QUESTIONS, seed=0)
        file, self._scratch = folder / "questions.jsonl", folder / "scratch"
        write_jsonl(file, [{"id": each.id, "question": each.text, "choices": None} for each in requests])
        params = transformer.init_sharded(self._runtime.mesh, workload.model, jax.random.key(0))
        self._model = Model("random", workload.model, Ids(workload.model.vocab), params)
        settings = RolloutSettings(
            seed=0,
            numerics=Numerics(),
            prompts=IdPrompts(shared, shared),
            reader=AnswerReader("number"),
            sampling=Sampling(paths=PATHS, temperature=1.0, max_tokens=TOKENS, stops=(), keep=("tokens", "logprobs")),
            rl=self._rl,
            batching=Batching(lanes=QUESTIONS, slots=PATHS),
        )
        self._rollouts = Rollouts(self._runtime, settings, self._train, file, {}, self._model, self._scratch / "rollouts")
        self._asked, self._batch = list[float](), Batch({})

    def _next(self, step: int, model: Any) -> Batch:
        self._asked.append(time.perf_counter())
        self._batch = self._rollouts(step, model)
        return self._batch

    def whole(self) -> float:
        """Return the median seconds between two batches, after those that compile."""
        objective, trainable = policy_objective(self._model.config, self._rl), AllWeights(self._model.config)
        with training_run(self._runtime, self._train, 0, self._scratch) as run:
            train(objective, self._next, trainable, (), self._model.params, self._train, run)
        found = [after - before for before, after in zip(self._asked, self._asked[1:], strict=False)]
        return statistics.median(found[WARM_UP:])

    def sampling(self, repeats: int) -> float:
        """Return the median seconds of sampling, rewards and packing, with weights that no step is about to change."""
        found = []
        for number in range(repeats + 1):
            start = time.perf_counter()
            self._rollouts(1000 + number, lambda: self._model.params)
            found.append(time.perf_counter() - start)
        return statistics.median(found[1:])

    def training(self, repeats: int) -> float:
        """Return the median seconds of a training step on the last batch."""
        mesh, trainable = self._runtime.mesh, AllWeights(self._model.config)
        state = init_state(mesh, trainable, self._train, self._model.params, 0)
        step = make_step(policy_objective(self._model.config, self._rl), trainable, self._train)

        def run() -> Any:
            nonlocal state
            state, metrics = step(state, place_batch(mesh, self._batch), {})
            return metrics

        return seconds(run, repeats)


def trl_step(workload: Workload, steps: int, folder: str) -> float:
    """Return the median seconds of a step of trl's GRPOTrainer on the same shapes, in float32 and with its own generation."""
    import tokenizers
    from datasets import Dataset
    from transformers import PreTrainedTokenizerFast, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    vocab = workload.model.vocab
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({str(i): i for i in range(vocab)}, unk_token="0"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    last = str(vocab - 1)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token=last, pad_token=last)
    shared, requests = prompts(workload, steps * QUESTIONS, seed=0)
    ended = list[float]()

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            ended.append(time.perf_counter())

    draw = random.Random(0)

    def reward(completions: list[str], **_: Any) -> list[float | None]:
        return [float(draw.random() < 0.5) for _ in completions]

    trainer = GRPOTrainer(
        model=transformers_model(workload.model),
        reward_funcs=reward,
        args=GRPOConfig(
            output_dir=folder,
            max_steps=steps,
            per_device_train_batch_size=64,
            gradient_accumulation_steps=QUESTIONS * PATHS // 64,
            num_generations=PATHS,
            max_completion_length=TOKENS,
            generation_kwargs={"min_new_tokens": TOKENS},
            temperature=1.0,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            logging_strategy="no",
        ),
        train_dataset=Dataset.from_list([{"prompt": f"{shared} {each.text}"} for each in requests]),
        processing_class=tokenizer,
        callbacks=[Clock()],
    )
    trainer.train()
    found = [after - before for before, after in zip(ended, ended[1:], strict=False)]
    return statistics.median(found)


def measure(workload: Workload, repeats: int) -> tuple[float, float, float]:
    """Return the median seconds of a step of the loop, and those of its sampling and of its training alone."""
    with tempfile.TemporaryDirectory() as folder:
        runtime = Runtime(MeshConfig(), epath.Path(folder) / "metrics", "rl_step")
        with use_mesh(runtime.mesh):
            loop = Loop(runtime, workload, repeats + WARM_UP + 1, epath.Path(folder))
            return loop.whole(), loop.sampling(repeats), loop.training(repeats)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--peers", action="store_true", help="also measure trl, if it is installed")
    arguments = parser.parse_args()
    workload = WORKLOADS["S"]
    report(figure="machine", device=jax.devices()[0].device_kind)
    whole, sampling, training = measure(workload, arguments.repeats)
    alone = round((sampling + training) / whole, 3)
    parts = {"sampling": round(sampling, 2), "training": round(training, 2), "share": alone}
    report(figure="rl_step", seconds=round(whole, 2), tokens_per_second=round(QUESTIONS * PATHS * TOKENS / whole), **parts)
    if arguments.peers and importlib.util.find_spec("trl"):
        with tempfile.TemporaryDirectory() as folder:
            peer = trl_step(workload, arguments.repeats, folder)
        report(figure="rl_step", peer="trl", seconds=round(peer, 2), times=round(peer / whole, 2))


if __name__ == "__main__":
    main()

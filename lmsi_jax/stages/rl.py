"""Reinforcement learning of one model: sample groups of paths, reward them, and train on them, in one process on one mesh."""

import dataclasses
import json

from etils import epath

from lmsi_jax.answers.reader import accepted_answers
from lmsi_jax.checkpoint import folder
from lmsi_jax.core.files import write_text
from lmsi_jax.core.metric_log import read_metrics
from lmsi_jax.core.progress import console
from lmsi_jax.core.records import Record, read_jsonl
from lmsi_jax.core.rng import stable_hash
from lmsi_jax.pipeline.run_folder import Files
from lmsi_jax.pipeline.runtime import Runtime
from lmsi_jax.rl.config import GAE
from lmsi_jax.rl.head import WithHead
from lmsi_jax.rl.objective import policy_objective
from lmsi_jax.sharding import processes
from lmsi_jax.stages.finetune import save_trained, training_run
from lmsi_jax.stages.probes import PREFIX, Probes
from lmsi_jax.stages.rollouts import Rollouts, RolloutSettings
from lmsi_jax.training.config import UpdateConfig
from lmsi_jax.training.hooks import Best, Hook
from lmsi_jax.training.loop import train
from lmsi_jax.training.step import init_state
from lmsi_jax.training.trainable import Trainable, trainable


@dataclasses.dataclass(frozen=True)
class RlSettings(RolloutSettings):
    """How rollouts are sampled and rewarded, and how a model is trained on them."""

    train: UpdateConfig = UpdateConfig()


def run_rl(runtime: Runtime, settings: RlSettings, inputs: Files, outputs: Files, scratch: epath.Path) -> None:
    """Train `model` on rollouts of `questions`, and write it as `trained`, all `rollouts`, and what the `guard` saw.

    Only a reward that reads gold answers has the input `gold`. Raises UserError when no group of paths ever had rewards that
    differ, so that nothing was learnt.
    """
    rl, source = settings.rl, folder.name_of(inputs["model"])
    config = dataclasses.replace(settings.train, save_every=rl.check_every) if rl.check_every else settings.train
    model = runtime.load(inputs["model"], settings.numerics, control=settings.prompts.chat is not None)
    weights = trainable(model.config, config)
    arrays: Trainable = WithHead(weights, model.config, starts_at_zero=True) if rl.advantage == GAE else weights
    gold = {row["id"]: accepted_answers(row) for row in read_jsonl(inputs["gold"])} if "gold" in inputs else {}
    with training_run(runtime, config, stable_hash(f"{settings.seed} rl"), scratch, note=lambda _: rollouts.note) as run:
        rollouts = Rollouts(
            runtime, settings, config, inputs["questions"], gold, model, scratch / "rollouts", inputs.get("reward_model")
        )
        hooks, probes = list[Hook](), Probes(rollouts, settings.seed, scratch / "probes") if rl.check_every else None
        if probes:
            probes.measure(model.params, 0)
            hooks = [Hook(rl.check_every, probes.measure)]
            if rl.guard:
                best = Best(f"{PREFIX}twin_agreement", "max", if_stopped=True)
                run = dataclasses.replace(run, best=best, stop=lambda history: bool(probes.alarm(history)))
        objective = policy_objective(model.config, rl, config.remat)
        trained = train(objective, rollouts, arrays, hooks, model.params, config, run)
        rollouts.end(outputs["rollouts"])
        verdict = probes.verdict(read_metrics(run.metrics)) if probes else {}
        if rl.guard and verdict.get("alarm") and not verdict["kept"]:
            trained = init_state(run.mesh, arrays, config, model.params, run.seed).params
        _end(runtime.stage, verdict, outputs["guard"], guards=rl.guard)
        save_trained(outputs["trained"], source, model, weights, trained["model"] if rl.advantage == GAE else trained, config)


def _end(stage: str, guard: Record, file: epath.Path, *, guards: bool) -> None:
    """Write what the guard saw, and print why it ended the run, if it did."""
    if guard:
        guard = {**guard, "kept": guard["kept"] if guards else guard["step"], "guarded": guards}
    processes.by_first(lambda: write_text(file, json.dumps(guard) + "\n"))
    if guards and guard.get("alarm"):
        kept = f"The state of step {guard['kept']} was kept."
        kept = kept if guard["kept"] else "No later state was better than the model before training, which is kept."
        console.print(f"{stage}: ended after step {guard['step']}. {guard['alarm']} {kept}", markup=False)

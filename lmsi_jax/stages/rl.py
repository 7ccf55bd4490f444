"""Reinforcement learning of one model: sample groups of paths, reward them, and train on them, in one process on one mesh."""

import dataclasses
import json

from etils import epath

from lmsi_jax.answers.reader import accepted_answers
from lmsi_jax.checkpoint import folder
from lmsi_jax.core.files import write_text
from lmsi_jax.core.metric_log import read_metrics
from lmsi_jax.core.progress import ProgressBar, console
from lmsi_jax.core.records import read_jsonl
from lmsi_jax.core.rng import stable_hash
from lmsi_jax.pipeline.run_folder import Files
from lmsi_jax.pipeline.runtime import Runtime
from lmsi_jax.rl.objective import policy_objective
from lmsi_jax.sharding import processes
from lmsi_jax.sharding.rules import use_mesh
from lmsi_jax.stages.probes import PREFIX, Probes
from lmsi_jax.stages.rollouts import Rollouts, RolloutSettings
from lmsi_jax.training.config import UpdateConfig
from lmsi_jax.training.hooks import Best, Hook
from lmsi_jax.training.loop import Run, train
from lmsi_jax.training.trainable import trainable


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
    arrays = trainable(model.config, config.lora)
    gold = {row["id"]: accepted_answers(row) for row in read_jsonl(inputs["gold"])} if "gold" in inputs else {}
    with use_mesh(runtime.mesh), ProgressBar(runtime.stage, config.steps) as bar:
        rollouts = Rollouts(runtime, settings, config, inputs["questions"], gold, model, scratch / "rollouts")
        run = Run(
            mesh=runtime.mesh,
            seed=stable_hash(f"{settings.seed} rl"),
            checkpoints=scratch / "state",
            metrics=runtime.metrics_file(),
            work=None,
            on_step=lambda step, values: bar.update(step, rollouts.note),
        )
        hooks, probes = [], Probes(rollouts, settings.seed, scratch / "probes") if rl.check_every else None
        if probes:
            probes.measure(model.params, 0)
            hooks = [Hook(rl.check_every, probes.measure)]
            if rl.guard:
                best = Best(f"{PREFIX}twin_agreement", "max", if_stopped=True)
                run = dataclasses.replace(run, best=best, stop=lambda history: bool(probes.alarm(history)))
        objective = policy_objective(model.config, rl, config.remat)
        trained = train(objective, rollouts, arrays, hooks, model.params, config, run)
        rollouts.end(outputs["rollouts"])
        guard = probes.verdict(read_metrics(run.metrics)) if probes else {}
        processes.by_first(lambda: write_text(outputs["guard"], json.dumps(guard) + "\n"))
        if guard.get("alarm"):
            console.print(
                f"{runtime.stage}: ended after step {guard['step']}. {guard['alarm']} The state of step "
                f"{guard['kept']} was kept.",
                markup=False,
            )
        params = arrays.merged(model.params, trained)
        adapters = folder.Adapters(trained, config.lora, source) if config.lora.rank else None
        stored = dataclasses.replace(folder.load_config(source), dtype=model.config.dtype)
        folder.save(outputs["trained"], stored, params, folder.companions(source), adapters, finetuned_from=source)

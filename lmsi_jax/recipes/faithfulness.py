"""The stages that measure whether a model's answer depends on its chain of thought (Lanham et al. 2023, arXiv 2307.13702).

    held-out questions -> greedy paths -> edited beginnings -> the model goes on from each -> measures

Several checkpoints, such as those before and after a round, are measured on the same questions and compared with the first.
"""

from lmsi_jax.checkpoint import folder as checkpoints
from lmsi_jax.core.errors import UserError
from lmsi_jax.pipeline.recipe import Recipe
from lmsi_jax.pipeline.run_folder import RunFolder
from lmsi_jax.pipeline.stage import Stage
from lmsi_jax.recipes.config import FaithfulnessConfig
from lmsi_jax.recipes.parts import Parts, model_checks


def stages(config: FaithfulnessConfig, folder: RunFolder) -> list[Stage]:
    """Return all stages. The first model is that of `config.model`; the others are those of `config.others`."""
    parts = Parts(config, folder, config.model)
    if not parts.is_scored:
        raise UserError("There are no held-out questions with answers; name a file with --config.data.eval_questions.")
    models = {checkpoint: checkpoints.locate(checkpoint) for checkpoint in (config.model.checkpoint, *config.others)}
    return [parts.prepare(), *parts.faithfulness(config, models)]


RECIPE = Recipe("faithfulness", stages, model_checks("model", trains=False))

"""Distillation (Huang et al. 2022, table 7): a teacher's voted samples train a student.

    questions -> the teacher samples m paths -> vote -> format -> the student is fine-tuned -> evaluate

The student may have another architecture and another tokenizer: paths are text, and each model has its own prompts.
"""

import dataclasses
from typing import Any

from lmsi_jax.pipeline.recipe import Check, Recipe
from lmsi_jax.pipeline.run_folder import RunFolder
from lmsi_jax.pipeline.runtime import Runtime
from lmsi_jax.pipeline.stage import Stage
from lmsi_jax.recipes.config import DistillConfig
from lmsi_jax.recipes.parts import Parts, model_checks, report, show_scores
from lmsi_jax.recipes.pretrain import base_stages, check_base

GROUP = "teacher"


def stages(config: DistillConfig, folder: RunFolder) -> list[Stage]:
    """Return all stages. They score the models "student" (the baseline), "teacher" and "distilled" (the trained student)."""
    source, trained_here = config.student, not config.student.checkpoint
    if trained_here:
        source = dataclasses.replace(source, checkpoint=str(folder.model("student")))
    teacher, student = Parts(config, folder, config.teacher), Parts(config, folder, source, trained_here=trained_here)
    distilled = folder.model("distilled")
    result = [teacher.prepare()]
    result += base_stages(config.base, config.seed, folder, "student") if trained_here else []
    if teacher.is_scored:
        result += [student.evaluate("student", student.checkpoint, 0, "student")]
        result += student.transfer("student", student.checkpoint, 0)
        result += [teacher.evaluate("teacher", teacher.checkpoint, 0, "teacher")]
    result += [
        teacher.sample(GROUP, 1, teacher.checkpoint),
        teacher.steps(GROUP),
        teacher.vote(GROUP),
        student.format(GROUP),
        student.finetune(GROUP, 1, student.checkpoint, distilled),
    ]
    if teacher.is_scored:
        result += [student.evaluate("distilled", distilled, 1, "distilled"), *student.transfer("distilled", distilled, 1)]
    return [*result, report(config, folder, result)]


def _student(check: Check[Any]) -> Check[Any]:
    """Return a check that does nothing unless the config names a checkpoint of the student."""

    def run(config: DistillConfig, runtime: Runtime) -> str:
        return check.run(config, runtime) if config.student.checkpoint else "trained from scratch by this run"

    return Check(check.name, run)


def _base(config: DistillConfig, runtime: Runtime) -> str:
    if config.student.checkpoint:
        return "none; the student has a checkpoint"
    return check_base(config.base, runtime, config.mesh.max_replicated_gib, "base.train")


OF_STUDENT = [check for check in model_checks("student", samples=False) if check.name.startswith("student ")]
CHECKS = (*model_checks("teacher", trains=False), *map(_student, OF_STUDENT), Check[Any]("base", _base))
RECIPE = Recipe("distill", stages, CHECKS, show_scores)

"""Writes the best answers of human rankings as training rows."""

import dataclasses

from etils import epath

from lmsi_jax.core.errors import UserError
from lmsi_jax.core.progress import console
from lmsi_jax.core.records import write_jsonl
from lmsi_jax.formatting.prompts import Prompts
from lmsi_jax.pipeline.run_folder import Files
from lmsi_jax.pipeline.runtime import Runtime
from lmsi_jax.rl.rankings import load_rankings
from lmsi_jax.stages.reward import split


@dataclasses.dataclass(frozen=True)
class ChosenSettings:
    """The layout of prompts, and which of them are held out for the test of the reward model."""

    prompts: Prompts
    seed: int
    held_out: float  # their share


def run_chosen(runtime: Runtime, settings: ChosenSettings, inputs: Files, outputs: Files, scratch: epath.Path) -> None:
    """Write the best answers of `rankings` as rows of `examples`, each pair of a prompt and an answer once.

    Prompts are laid out as questions behind the exemplars of the task. Those that the reward model is tested on are left out.
    A ranking in which all answers are equally good has no best one. Raises UserError when no ranking has one.
    """
    rankings, _ = split(load_rankings(inputs["rankings"]), settings.held_out, settings.seed)
    best = dict.fromkeys(
        (ranking.prompt, answer)
        for ranking in rankings
        for answer, rank in zip(ranking.answers, ranking.ranks, strict=True)
        if rank == min(ranking.ranks) < max(ranking.ranks)
    )
    if not best:
        raise UserError(f"{inputs['rankings']}: all answers of each of {len(rankings)} rankings are equally good.")
    prompts = settings.prompts
    write_jsonl(
        outputs["examples"],
        (
            {"id": prompt, "prompt": prompts.render("few_shot_cot", prompt), "target": prompts.target(answer)}
            for prompt, answer in best
        ),
    )
    console.print(f"{runtime.stage}: {len(best):,} best answers of {len(rankings):,} rankings")

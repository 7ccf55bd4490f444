"""Sections and checks that several recipes share."""

import dataclasses
from typing import Any

from lmsi_jax.core.settings import require, require_at_least, require_one_of, require_seed, to_dict
from lmsi_jax.decoding.config import SampleConfig
from lmsi_jax.evaluation.config import EvaluateConfig
from lmsi_jax.formatting.config import FORMATS, FormatConfig
from lmsi_jax.sharding.config import MeshConfig
from lmsi_jax.tasks.config import NONE, OWN, DataConfig, ProposeConfig
from lmsi_jax.training.config import FinetuneConfig
from lmsi_jax.trust.bias import require_place_for_answer
from lmsi_jax.trust.corruptions import CORRUPTIONS
from lmsi_jax.trust.interventions import KINDS, Options
from lmsi_jax.voting.config import SelectConfig


@dataclasses.dataclass(frozen=True)
class LoopConfig:
    """The sections shared by all recipes that sample, vote, format, fine-tune and evaluate."""

    seed: int = 0
    mesh: MeshConfig = MeshConfig()
    data: DataConfig = DataConfig()
    propose: ProposeConfig = ProposeConfig()
    sample: SampleConfig = SampleConfig()
    select: SelectConfig = SelectConfig()
    format: FormatConfig = FormatConfig()
    finetune: FinetuneConfig = FinetuneConfig()
    evaluate: EvaluateConfig = EvaluateConfig()

    def check(self, path: str) -> None:
        require_seed(self.seed)
        require_curriculum(self)


@dataclasses.dataclass(frozen=True)
class InterventionConfig:
    """How paths are edited to see whether their answers depend on them."""

    interventions: Options = Options()
    answer_tokens: int = 16  # token limit of an answer after edited steps

    def check_interventions(self, path: str) -> None:
        """Raise UserError for options without which nothing would be edited."""
        require_at_least(1, self, path, "answer_tokens")
        for name in ("kinds", "errors", "fillers", "hints", "openings", "changes"):
            require(bool(getattr(self.interventions, name)), f"interventions.{name} is empty; name at least one.")
        for name in ("hints", "openings"):
            for text in getattr(self.interventions, name):
                require_place_for_answer(f"interventions.{name}", text)
        for name in ("errors", "changes", "fillers"):
            require(0 not in getattr(self.interventions, name), f"interventions.{name} has a 0, which changes nothing.")
        require(min(self.interventions.fillers) > 0, f"interventions.fillers={self.interventions.fillers} are numbers of dots.")
        require_at_least(1, self.interventions, "interventions.", "judgements")
        for kind in self.interventions.kinds:
            require_one_of("interventions.kinds", kind, KINDS)
        for kind in self.interventions.corruptions:
            require_one_of("interventions.corruptions", kind, CORRUPTIONS)


def require_given_exemplars(config: LoopConfig) -> None:
    """Raise UserError when the model is to write the exemplars of its prompts, which only `lmsi run` lets it do."""
    require(
        config.data.exemplars != OWN,
        f"data.exemplars='{OWN}': only `lmsi run` lets the model write them. Name a file, such as W/exemplars.jsonl of such a "
        f"run.",
    )


def require_given(config: LoopConfig) -> None:
    """Raise UserError when the model is to write its questions or exemplars, which only `lmsi run` lets it do."""
    require_given_exemplars(config)
    require(
        config.data.source != OWN,
        f"data.source='{OWN}': only `lmsi run` lets the model write its questions. Name a file with --config.data.questions, "
        f"such as W/questions.jsonl of such a run.",
    )


def require_formats(config: LoopConfig) -> None:
    """Raise UserError for few-shot formats without exemplars."""
    few_shot = [name for name in config.format.formats if FORMATS[name].few_shot]
    require(
        config.data.exemplars != NONE or not few_shot,
        f"data.exemplars='{NONE}' has no exemplars for the training rows in the format(s) {', '.join(few_shot)}; set "
        f"--config.format.formats=\"('zero_shot_cot','zero_shot_direct')\".",
    )


def require_server_continues(config: LoopConfig) -> None:
    """Raise UserError when a server is to go on from given steps and cannot."""
    require(
        config.sample.engine == "mesh" or config.sample.endpoint.api == "completions" or config.sample.endpoint.continues,
        "sample.endpoint.api='chat': a chat server begins a new answer, and here it has to go on with a given one. Set "
        "--config.sample.endpoint.api=completions, or --config.sample.endpoint.continues=True for a server that knows "
        "continue_final_message (vLLM, SGLang).",
    )


def require_curriculum(config: LoopConfig) -> None:
    """Raise UserError for a difficulty without a curriculum, or the other way round."""
    share, difficulty = config.finetune.curriculum, config.format.difficulty
    require(
        (share < 1) == (difficulty != "none"),
        f"finetune.curriculum={share} and format.difficulty='{difficulty}': a curriculum needs a share below 1 and what makes "
        f"rows difficult. Set both, such as --config.finetune.curriculum=0.25 --config.format.difficulty=vote_share.",
    )
    require(share == 1 or config.finetune.objective == "likelihood", "finetune.curriculum orders rows, and scpo has pairs.")


def require_likelihood(config: LoopConfig, why: str) -> None:
    """Raise UserError when training is to compare paths of a vote, which only `lmsi run` does."""
    objective = config.finetune.objective
    require(objective == "likelihood", f"finetune.objective='{objective}': {why}. Set it to likelihood.")


def require_unused(config: LoopConfig, command: str, sections: dict[str, Any]) -> None:
    """Raise UserError when a section of the config has a value other than this one, since the command does not read it."""
    for name, section in sections.items():
        for key, value in to_dict(getattr(config, name)).items():
            require(value == to_dict(section)[key], f"{name}.{key}={value!r} has no effect in {command}; leave it out.")

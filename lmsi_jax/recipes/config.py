"""The root config of each recipe. A config file (`configs/*.py`) overrides some values of one of them."""

import dataclasses
from typing import Literal

from lmsi_jax.capacity.config import PlanConfig
from lmsi_jax.checkpoint.config import SourceConfig
from lmsi_jax.core.settings import require, require_at_least, require_one_of, require_seed, require_share, untraced
from lmsi_jax.evaluation.config import EvaluateConfig
from lmsi_jax.formatting.config import FormatConfig
from lmsi_jax.model.config import ModelConfig
from lmsi_jax.recipes.shared_config import (
    InterventionConfig,
    LoopConfig,
    require_formats,
    require_given,
    require_likelihood,
    require_server_continues,
    require_unused,
)
from lmsi_jax.rl.config import RewardConfig, RlConfig
from lmsi_jax.rl.rewards import MODEL
from lmsi_jax.sharding.config import MeshConfig
from lmsi_jax.tasks.config import OWN, CorpusConfig, DataConfig, ProposeConfig
from lmsi_jax.training.config import FinetuneConfig, TrainConfig, UpdateConfig
from lmsi_jax.trust.bias import require_place_for_answer
from lmsi_jax.trust.steps import CHECKS, CONTRACTS
from lmsi_jax.voting.config import SelectConfig


@dataclasses.dataclass(frozen=True)
class Config(LoopConfig, InterventionConfig):
    """A self-improvement run."""

    rounds: int = 1  # 0 only scores the model
    more_tasks: tuple[str, ...] = ()  # tasks besides data.task that train the same model, with as many questions each
    train_from: Literal["base", "previous"] = "base"  # the model that a round's fine-tuning starts from
    faithfulness: int = 0  # held-out questions of the tests of faithfulness, which cover the base and each round; 0 = no tests
    model: SourceConfig = SourceConfig()
    plan: PlanConfig = untraced(PlanConfig())

    def check(self, path: str) -> None:
        super().check(path)
        require(self.faithfulness >= 0, f"faithfulness={self.faithfulness} is negative; 0 makes no tests.")
        require(
            not self.faithfulness or self.sample.engine == "mesh",
            f"faithfulness={self.faithfulness} with sample.engine='openai': the server's model is not that of a round. Set "
            f"faithfulness=0, and run lmsi faithfulness on the server's model.",
        )
        self.check_interventions(path)
        require_formats(self)
        if self.data.exemplars == OWN:
            require(
                self.data.templates <= self.sample.paths,
                f"data.templates={self.data.templates} is more than sample.paths={self.sample.paths}, so that some templates "
                f"would have no path; lower it.",
            )
            require(
                self.sample.adaptive.rule == "none",
                f"sample.adaptive.rule='{self.sample.adaptive.rule}' with data.exemplars='{OWN}': the paths of a question are "
                f"spread over templates that are sampled one after another, so that no vote can stop them. Set the rule to "
                f"none.",
            )
            require(
                not self.faithfulness,
                f"faithfulness={self.faithfulness} with data.exemplars='{OWN}': set faithfulness=0, and run lmsi faithfulness "
                f"with --config.data.exemplars=W/exemplars.jsonl.",
            )
        require(
            not self.more_tasks or OWN not in (self.data.exemplars, self.data.source),
            f"more_tasks={self.more_tasks} with questions or exemplars that the model writes ('{OWN}'): only one task can have "
            f"such; leave more_tasks empty.",
        )
        require(
            self.finetune.objective == "likelihood" or not self.more_tasks and self.data.exemplars != OWN,
            f"finetune.objective='{self.finetune.objective}' with more_tasks or exemplars of the model's own: pairs are of one "
            f"task and one prompt. Leave them out.",
        )
        require_at_least(0, self, path, "rounds")
        require(
            self.rounds <= 1 or self.sample.engine == "mesh",
            f"rounds={self.rounds} with sample.engine='openai': the server's model is the same in each round. Set rounds=1, "
            f"serve the new model and start the next run from it, or sample on the mesh.",
        )


@dataclasses.dataclass(frozen=True)
class BaseConfig:
    """A base model, trained on generated word problems: from scratch, or from a checkpoint with its tokenizer."""

    start: str = ""  # the checkpoint to go on from, whose architecture replaces `model`; "" = random weights
    model: ModelConfig = ModelConfig()
    corpus: CorpusConfig = CorpusConfig()
    tokenizer_documents: int = 20_000  # documents that the tokenizer is trained on
    held_out_documents: int = 500  # documents for the validation loss
    near_copies: float = 0.0  # documents that are so similar to others are left out (tasks/near_copies.py); 0 = none
    validate_every: int = 500  # steps between two measurements of the validation loss
    train: TrainConfig = TrainConfig(steps=3000, learning_rate=2e-3, warmup=100, weight_decay=0.1)

    def check(self, path: str) -> None:
        require_at_least(1, self, path, "tokenizer_documents", "held_out_documents", "validate_every")
        require_share(self, path, "near_copies")
        require(
            not self.train.lora.rank,
            f"{path}train.lora.rank={self.train.lora.rank}: pre-training trains all weights; set it to 0.",
        )
        require(
            self.train.curriculum == 1,
            f"{path}train.curriculum={self.train.curriculum}: documents have no difficulty; leave it out.",
        )


@dataclasses.dataclass(frozen=True)
class PretrainConfig(BaseConfig):
    """Pre-training of a base model from scratch."""

    seed: int = 0
    mesh: MeshConfig = MeshConfig()

    def check(self, path: str) -> None:
        super().check(path)
        require_seed(self.seed)


@dataclasses.dataclass(frozen=True)
class ScalingConfig(PretrainConfig):
    """Pre-training runs of several sizes and lengths, and the scaling laws that are fitted to them.

    `model` is the reference size. A size has its own width and layers, and the reference's ratios of heads and MLP to the
    width. The learning rate of N parameters is train.learning_rate x (N of the reference / N)^rate_exponent.
    """

    widths: tuple[int, ...] = (64, 96, 160, 256)  # of each size
    depths: tuple[int, ...] = (3, 4, 4, 5)  # layers of each size
    flops: tuple[float, ...] = (1e13, 3e13, 1e14)  # budgets: each size has a run with each of them
    tokens: tuple[float, float] = (1e6, 2e7)  # runs whose budget needs fewer or more tokens are left out
    rate_exponent: float = 0.3
    rate_factors: tuple[float, ...] = (0.5, 2.0)  # a size's first run is repeated with these multiples of its learning rate
    measurements: int = 8  # of the held-out loss, during each run
    resamples: int = 200  # of the runs, for intervals

    def check(self, path: str) -> None:
        super().check(path)
        require_at_least(1, self, path, "measurements")
        require_at_least(0, self, path, "resamples")
        require(not self.start, f"start='{self.start}': scaling runs start from random weights; leave it out.")
        for name, value, default in (
            ("train.steps", self.train.steps, PretrainConfig().train.steps),
            ("validate_every", self.validate_every, PretrainConfig().validate_every),
        ):
            require(value == default, f"{name}={value} has no effect: it follows from the budget of each run; leave it out.")
        require(
            len(self.widths) == len(self.depths) > 0,
            f"widths={self.widths} and depths={self.depths} must have one entry for each size.",
        )
        for name in ("widths", "depths", "flops", "rate_factors"):
            values = getattr(self, name)
            require(all(0 < value < 1e40 for value in values), f"{name}={values} must be positive and finite.")
            require(len(set(values)) == len(values) or name == "depths", f"{name}={values} has an entry twice.")
        require(1 not in self.rate_factors, f"rate_factors={self.rate_factors}: every run has the factor 1; leave it out.")
        require(0 < self.tokens[0] < self.tokens[1], f"tokens={self.tokens} must be a lower and an upper bound.")


@dataclasses.dataclass(frozen=True)
class DistillConfig(LoopConfig):
    """A teacher samples and votes. A student, of any architecture and tokenizer, is trained on the paths."""

    teacher: SourceConfig = SourceConfig()
    student: SourceConfig = SourceConfig(checkpoint="")  # "" first trains a student from scratch, as configured in `base`
    base: BaseConfig = BaseConfig()

    def check(self, path: str) -> None:
        super().check(path)
        require_given(self)
        require_formats(self)
        require_likelihood(self, "a student learns from paths of another model, not from pairs of its own")


@dataclasses.dataclass(frozen=True)
class FaithfulnessConfig(LoopConfig, InterventionConfig):
    """Tests of whether the answers of one or several models depend on their reasoning."""

    model: SourceConfig = SourceConfig()
    others: tuple[str, ...] = ()  # checkpoints that are compared with `model`, of the same tokenizer and prompts

    def check(self, path: str) -> None:
        super().check(path)
        require_given(self)
        self.check_interventions(path)
        require_server_continues(self)
        require(
            self.sample.engine == "mesh" or not self.others,
            f"others={self.others} with sample.engine='openai': the server has one model; leave `others` empty.",
        )


@dataclasses.dataclass(frozen=True)
class MonitorConfig(LoopConfig):
    """Training for paths that please and pass a check, audited by other checks. An experiment, not a way to train a model."""

    model: SourceConfig = SourceConfig()
    rounds: int = 2  # each from the model of the round before
    suggestion: str = "Tom says that the answer is {}."  # added to each question, with a wrong answer for {}
    against: tuple[str, ...] = ("arithmetic",)  # the checks that a path must pass to be trained on; () = none, the control

    def check(self, path: str) -> None:
        super().check(path)
        require_given(self)
        require_at_least(1, self, path, "rounds")
        require_place_for_answer("suggestion", self.suggestion)
        for name in self.against:
            require_one_of("against", name, (*CHECKS, *CONTRACTS))
        require(self.sample.engine == "mesh", "sample.engine='openai': the server's model is not that of a round; use 'mesh'.")
        unused = {
            "select": SelectConfig(max_paths=self.select.max_paths, distinct=self.select.distinct),
            "format": FormatConfig(formats=self.format.formats, distinct_direct=self.format.distinct_direct),
            "evaluate": EvaluateConfig(),
        }
        require_unused(self, "lmsi monitor", unused)
        require_likelihood(self, "lmsi monitor trains on paths, not on pairs")


@dataclasses.dataclass(frozen=True)
class RlRunConfig(LoopConfig):
    """Reinforcement learning of a model on groups of paths that it samples itself."""

    model: SourceConfig = SourceConfig()
    rl: RlConfig = RlConfig()
    train: UpdateConfig = UpdateConfig(learning_rate=1e-4, schedule="constant", warmup=10, weight_decay=0.0)

    def check(self, path: str) -> None:
        super().check(path)
        require_given(self)
        require(self.sample.engine == "mesh", "sample.engine='openai': the server's model does not learn; use 'mesh'.")
        require(not self.train.scan, "train.scan=True: the model also samples, which stacked layers do not; turn it off.")
        steps, each = self.train.steps, self.rl.steps_per_batch
        require(
            steps % each == 0,
            f"train.steps={steps} is not a multiple of the {each} steps on each batch of rollouts (rl.updates x rl.epochs); "
            f"set it to {steps // each * each or each}.",
        )
        require(
            self.train.row_length >= self.sample.max_tokens,
            f"train.row_length={self.train.row_length} and a path may have sample.max_tokens={self.sample.max_tokens} tokens; "
            f"raise the former.",
        )
        self.check_models()

    def check_models(self) -> None:
        """Raise UserError for a reward model that is missing or has no effect, and for settings of models without an effect."""
        rl = self.rl
        require(
            (MODEL in rl.rewards) == bool(rl.reward_model),
            f"rl.rewards={rl.rewards} and rl.reward_model='{rl.reward_model}': the reward '{MODEL}' needs a checkpoint, and a "
            f"checkpoint has no effect without it.",
        )
        unused = {"propose": ProposeConfig(), "format": FormatConfig(), "finetune": FinetuneConfig(), "select": SelectConfig()}
        require_unused(self, "lmsi rl", unused)


@dataclasses.dataclass(frozen=True)
class RlhfConfig(RlRunConfig):
    """Reinforcement learning from human feedback, all from one file of rankings.

    The model is fine-tuned on the best answers (`finetune`), a reward model is trained on the rankings (`reward`), and the
    fine-tuned model on the scores of the reward model (`rl`, `train`).
    """

    rl: RlConfig = RlConfig(rewards=(MODEL,), advantage="gae", beta=0.05, kl_where="reward", kl_estimator="k1", epochs=2)
    reward: RewardConfig = RewardConfig()
    reward_train: UpdateConfig = UpdateConfig(learning_rate=1e-4, weight_decay=0.0)

    def check_models(self) -> None:
        require(MODEL in self.rl.rewards, f"rl.rewards={self.rl.rewards} lacks '{MODEL}', which this recipe trains.")
        require(
            not self.rl.reward_model,
            f"rl.reward_model='{self.rl.reward_model}' has no effect here, where the reward model is trained. Use `lmsi rl`.",
        )
        require(
            self.reward.prompt == "question",
            "reward.prompt='text': paths are sampled behind questions in the layout of the task, so that rankings need it too. "
            "Set it to question.",
        )
        require_likelihood(self, "the best answers of rankings are imitated")
        require_unused(self, "lmsi rlhf", {"propose": ProposeConfig(), "format": FormatConfig(), "select": SelectConfig()})


@dataclasses.dataclass(frozen=True)
class RewardRunConfig:
    """Training of a reward model on human rankings."""

    seed: int = 0
    mesh: MeshConfig = MeshConfig()
    data: DataConfig = DataConfig()  # the layout of prompts
    model: SourceConfig = SourceConfig()
    reward: RewardConfig = RewardConfig()
    train: UpdateConfig = UpdateConfig(learning_rate=1e-4, weight_decay=0.0)

    def check(self, path: str) -> None:
        require_seed(self.seed)


# By the name of the module that defines the recipe.
ROOTS: dict[str, type] = {
    "self_improve": Config,
    "pretrain": PretrainConfig,
    "scaling": ScalingConfig,
    "distill": DistillConfig,
    "faithfulness": FaithfulnessConfig,
    "monitor": MonitorConfig,
    "rl": RlRunConfig,
    "rlhf": RlhfConfig,
    "reward": RewardRunConfig,
}

"""Settings of a training run, for pre-training and fine-tuning."""

import dataclasses
from typing import Literal

from lmsi_jax.core.settings import require, require_at_least, require_positive, require_share, untraced
from lmsi_jax.model.config import LoraConfig


@dataclasses.dataclass(frozen=True)
class UpdateConfig:
    """Optimiser, learning-rate schedule, checkpoints and logging of any training run."""

    steps: int = 200
    row_length: int = 256  # tokens per packed row, without a shared prompt
    optimizer: Literal["adamw", "adafactor"] = "adamw"  # adafactor keeps row and column sums instead of two moments
    remat: Literal["none", "scores", "dots", "full"] = (
        "scores"  # what the backward pass computes again; see model/transformer.py
    )
    learning_rate: float = 5e-4
    schedule: Literal["cosine", "linear", "constant"] = "cosine"  # of the learning rate, after warmup
    final_learning_rate: float = 0.1  # at the last step, as a share of learning_rate; the constant schedule ignores it
    warmup: int = 20  # steps of linear warmup; the last of them has the full learning_rate
    weight_decay: float = 0.01
    beta2: float = 0.98
    first_moment: Literal["float32", "bfloat16"] = "float32"  # the dtype of AdamW's mean gradient, of 4 or 2 bytes a weight
    clip: float = 1.0  # maximum global gradient norm
    scan: bool = False  # compile one layer for all, in a loop: for deep models, whose compilation takes long
    accumulate: int = 1  # microbatches per step (gradient accumulation); the rows of a step must be a multiple
    lora: LoraConfig = LoraConfig()
    save_every: int = untraced(200)  # steps between checkpoints
    log_every: int = untraced(10)  # steps between rows of the metrics file
    profile: tuple[int, int] = untraced((0, 0))  # first and last step of an XProf trace; (0, 0) = none

    def check(self, path: str) -> None:
        require_at_least(1, self, path, "steps", "row_length", "accumulate", "save_every", "log_every")
        require_positive(self, path, "learning_rate", "clip")
        require(0 <= self.beta2 < 1, f"{path}beta2={self.beta2} is not within [0, 1); it is the decay of Adam's second moment.")
        require(
            not (self.scan and self.lora.rank),
            f"{path}scan=True with {path}lora.rank={self.lora.rank}: adapters are not stacked; turn one of them off.",
        )
        require(
            self.optimizer == "adamw" or self.first_moment == "float32",
            f"{path}first_moment={self.first_moment} has no effect with {path}optimizer={self.optimizer}, which has none.",
        )
        require(self.weight_decay >= 0, f"{path}weight_decay={self.weight_decay} is negative; 0 turns it off.")
        require(
            0 <= self.final_learning_rate <= 1,
            f"{path}final_learning_rate={self.final_learning_rate} is not a share within 0..1 of learning_rate.",
        )
        require(
            0 <= self.warmup < self.steps,
            f"{path}warmup={self.warmup} must be at least 0 and less than {path}steps={self.steps}.",
        )


@dataclasses.dataclass(frozen=True)
class RouterConfig:
    """Losses of the routers of a model with experts; see model/experts.py. They have no effect on another model."""

    balance: float = 0.01  # coefficient of the load-balancing loss (Fedus et al. 2021)
    z_loss: float = 0.001  # coefficient of the routers' z-loss (Zoph et al. 2022)

    def check(self, path: str) -> None:
        require_at_least(0, self, path, "balance", "z_loss")


@dataclasses.dataclass(frozen=True)
class TrainConfig(UpdateConfig):
    """Training on packed rows, for pre-training and fine-tuning."""

    batch: int = 32  # packed rows per step
    share_prompts: bool = True  # compute a prompt that many rows begin with once per step, not in each row
    weighting: Literal["token", "row", "question"] = "token"  # what has equal weight in the loss; see formatting/examples.py
    z_loss: float = 0.0  # coefficient of the z-loss, 1e-4 in PaLM; see training/objective.py
    router: RouterConfig = RouterConfig()
    curriculum: float = 1.0  # share of the rows, the easiest by their `difficulty`, that the first step draws from; 1 = all
    curriculum_end: float = 0.5  # share of the steps after which all rows are drawn from; the share grows linearly

    def check(self, path: str) -> None:
        super().check(path)
        require_at_least(1, self, path, "batch")
        require(
            self.batch % self.accumulate == 0,
            f"{path}batch={self.batch} is not a multiple of {path}accumulate={self.accumulate}; every microbatch has "
            f"the same number of rows.",
        )
        require(0 < self.curriculum <= 1, f"{path}curriculum={self.curriculum} is not within (0, 1]; 1 draws from all rows.")
        require_share(self, path, "curriculum_end")
        require(self.z_loss >= 0, f"{path}z_loss={self.z_loss} is negative; PaLM uses 1e-4, and 0 turns it off.")


@dataclasses.dataclass(frozen=True)
class FinetuneConfig(TrainConfig):
    """Fine-tuning on a model's own voted paths."""

    objective: Literal["likelihood", "scpo"] = "likelihood"  # scpo: winning paths against others, weighted by their votes
    pairs: int = 4  # scpo: of each question
    beta: float = 0.5  # scpo: how much a pair may move the model from the one that training starts from
    alpha: float = 1.0  # scpo: weight of the likelihood of winning paths

    def check(self, path: str) -> None:
        super().check(path)
        require_at_least(1, self, path, "pairs")
        require_at_least(0, self, path, "alpha")
        require_positive(self, path, "beta")

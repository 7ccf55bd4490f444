"""Settings of reinforcement learning."""

import dataclasses
from typing import Literal

from lmsi_jax.core.errors import UserError, unknown
from lmsi_jax.core.settings import require, require_at_least, require_one_of, require_positive
from lmsi_jax.rl.rewards import BUILT_IN, VALID_VOTE
from lmsi_jax.trust.steps import CHECKS, CONTRACT, CONTRACTS

Aggregation = Literal["token", "sequence", "constant"]
Estimator = Literal["k1", "k2", "k3"]
Where = Literal["reward", "loss"]
DEFAULT_CHECKS = ("arithmetic", "answer", CONTRACT)
GAE = "gae"  # the advantage estimator that needs the values of states
WRONG = {
    ("loss", "k1"): "its expected gradient is 0, so that it regularises nothing",
    ("reward", "k2"): "its expected gradient is not that of a divergence",
    ("reward", "k3"): "its expected gradient is that of KL(p | p_ref) minus that of KL(p_ref | p), almost 0 near the reference",
}


def check_divergence(where: Where, estimator: Estimator) -> None:
    """Raise UserError for a combination whose gradient is not that of a divergence."""
    if (where, estimator) in WRONG:
        right = {"loss": "k2 (or k3)", "reward": "k1"}[where]
        raise UserError(f"The estimator {estimator} in the {where}: {WRONG[where, estimator]}. Use {right} there.")


@dataclasses.dataclass(frozen=True)
class Clip:
    """The range of ratios, and the cap of losses with negative advantages.

    Defaults: 0.2 and 0.28 (DAPO, arXiv 2503.14476). GSPO's ratios are of sequences, and its range is some hundred times
    narrower: 3e-4 and 4e-4. `dual` of 3 caps the loss at 3 times the advantage (Ye et al. 2020); 0 = no cap.
    """

    low: float = 0.2
    high: float = 0.28
    dual: float = 0.0


@dataclasses.dataclass(frozen=True)
class ValueConfig:
    """Values of states, and advantages from them (PPO). The defaults are those of Ouyang et al. 2022 as trl has them."""

    coefficient: float = 0.1  # of the loss of the values
    clip: float = 0.2  # how far a value may go from that of the model that sampled; 0 = as far as it likes
    gamma: float = 1.0  # discount of a token
    lam: float = 0.95  # of generalised advantage estimation: 1 = the whole return, 0 = one token

    def check(self, path: str) -> None:
        require_at_least(0, self, path, "coefficient", "clip")
        for name in ("gamma", "lam"):
            require(0 <= getattr(self, name) <= 1, f"{path}{name}={getattr(self, name)} is not within 0..1.")


@dataclasses.dataclass(frozen=True)
class RewardConfig:
    """Training of a reward model."""

    rankings: str = ""  # a JSON Lines file of human rankings; see rl/rankings.py for its formats
    prompt: Literal["question", "text"] = "question"  # question: laid out as a question of the task; text: used as it is
    batch: int = 16  # rankings of a step
    held_out: float = 0.2  # share of the prompts whose rankings are for the test
    centring: float = 0.01  # coefficient of the squared scores, which keeps them around 0

    def check(self, path: str) -> None:
        require_at_least(1, self, path, "batch")
        require_at_least(0, self, path, "centring")
        require(0 < self.held_out < 1, f"{path}held_out={self.held_out} is not within (0, 1).")


@dataclasses.dataclass(frozen=True)
class RlConfig:
    """What is sampled, how it is rewarded, and the loss. The defaults follow DAPO without a deviation (Dr. GRPO)."""

    temperature: float = 1.0  # of rollouts, and of the policy that is trained; the distribution is never truncated
    questions: int = 16  # of each batch of rollouts
    paths: int = 16  # of each question
    rewards: tuple[str, ...] = ("vote",)  # those of rl/rewards.py, or a.function
    checks: tuple[str, ...] = DEFAULT_CHECKS  # of "valid_vote"; "contract" is what the task declares
    reward_model: str = ""  # the checkpoint of the reward "model", which `lmsi reward` trained
    reward_weights: tuple[float, ...] = ()  # of each reward, 1 by default
    advantage: Literal["reinforce", "rloo", "grpo", "dr_grpo", "batch_normalised", "gae"] = "dr_grpo"  # gae: PPO, with `value`
    value: ValueConfig = ValueConfig()
    positive_weight: float = 1.0  # of positive advantages; 0.1 is W-REINFORCE
    advantage_limit: float = 5.0  # advantages are clipped to this size
    loss: Literal["reinforce", "ppo", "gspo", "cispo"] = "ppo"
    aggregate: Aggregation = "token"
    clip: Clip = Clip()
    updates: int = 1  # steps on each batch of rollouts; its questions are divided among them
    epochs: int = 1  # how often each batch of rollouts is used
    beta: float = 0.0  # coefficient of the divergence from the initial model; 0 = none
    kl_where: Where = "loss"
    kl_estimator: Estimator = "k2"
    truncated: Literal["scored", "left_out"] = "scored"  # paths that end at the token limit; left_out: not in the loss
    vote_shares: tuple[float, float] = (0.0, 1.0)  # groups whose vote has a share outside this range are not trained on
    check_every: int = 0  # steps between two checks of the signals of collapse; 0 = none
    probes: int = 64  # questions of a check, each with a reworded twin and a counterpart with another number
    probe_paths: int = 8  # paths of each of them
    guard: bool = True  # end at an alarm of the checks, and return the state with the best agreement of twins
    redraws: int = 0  # dynamic sampling: more batches of questions that may be drawn until all groups teach something

    @property
    def weights(self) -> tuple[float, ...]:
        """The weight of each reward."""
        return self.reward_weights or (1.0,) * len(self.rewards)

    @property
    def steps_per_batch(self) -> int:
        """Training steps on each batch of rollouts."""
        return self.updates * self.epochs

    def trains_on(self, share: float) -> bool:
        """Whether a group whose vote has this share is trained on."""
        return self.vote_shares[0] <= share <= self.vote_shares[1]

    def check(self, path: str) -> None:
        require_positive(self, path, "temperature", "advantage_limit")
        require_at_least(1, self, path, "questions", "paths", "updates", "epochs", "probes", "probe_paths")
        require_at_least(0, self, path, "redraws", "check_every", "positive_weight", "beta")
        require(
            len(self.vote_shares) == 2 and 0 <= self.vote_shares[0] < self.vote_shares[1] <= 1,
            f"{path}vote_shares={self.vote_shares} must be a lower and an upper bound within 0..1, such as (0.3, 0.9).",
        )
        require(bool(self.rewards), f"{path}rewards is empty; name at least one, such as vote.")
        for name in self.rewards:
            if "." not in name and name not in BUILT_IN:
                raise unknown(f"{path}rewards", name, BUILT_IN)
        for name in self.checks:
            require_one_of(f"{path}checks", name, (*CHECKS, *CONTRACTS, CONTRACT))
        require(
            len(self.weights) == len(self.rewards),
            f"{path}reward_weights={self.reward_weights} has {len(self.weights)} numbers for {len(self.rewards)} rewards "
            f"{self.rewards}; give one for each, or none.",
        )
        require(
            self.paths > 1 or self.advantage in ("reinforce", GAE),
            f"{path}paths=1 with {path}advantage='{self.advantage}', which compares paths; raise {path}paths.",
        )
        require(
            not self.check_every or self.probe_paths <= self.paths,
            f"{path}probe_paths={self.probe_paths} is more than {path}paths={self.paths}, for which decoding is compiled; "
            f"lower the former or raise the latter.",
        )
        require(
            self.questions % self.updates == 0,
            f"{path}questions={self.questions} does not divide into {path}updates={self.updates} parts.",
        )
        require(
            self.loss != "reinforce" or self.steps_per_batch == 1,
            f"{path}loss='reinforce' with {self.steps_per_batch} steps on each batch of rollouts: it is right only for "
            f"paths of the present policy. Set {path}updates=1 and {path}epochs=1, or {path}loss='ppo'.",
        )
        require(
            self.loss != "gspo" or self.clip.high < 0.01,
            f"{path}clip.high={self.clip.high} with {path}loss='gspo', whose ratios are of sequences and hardly ever reach it; "
            f"set --config.{path}clip.low=3e-4 --config.{path}clip.high=4e-4.",
        )
        require(
            self.value == ValueConfig() or self.advantage == GAE,
            f"{path}value has no effect with {path}advantage='{self.advantage}', which has no values of states; set the latter "
            f"to {GAE}.",
        )
        require(
            self.vote_shares == (0.0, 1.0) or self.advantage != GAE,
            f"{path}vote_shares={self.vote_shares} leaves out groups, and {path}advantage='{GAE}' has none; leave it out.",
        )
        require(
            set(self.checks) == set(DEFAULT_CHECKS) or VALID_VOTE in self.rewards,
            f"{path}checks={self.checks} without the reward '{VALID_VOTE}', which alone reads them; leave them out.",
        )
        if self.beta:
            check_divergence(self.kl_where, self.kl_estimator)
        else:
            require(
                (self.kl_where, self.kl_estimator) == ("loss", "k2"),
                f"{path}kl_where='{self.kl_where}' and {path}kl_estimator='{self.kl_estimator}' have no effect with "
                f"{path}beta=0; set {path}beta, the coefficient of the divergence.",
            )

"""Losses and advantages against trl's own functions, on the same random batches."""

from types import SimpleNamespace
from unittest.mock import MagicMock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="install the extra 'peers'")
pytest.importorskip("trl", reason="install the extra 'peers'")

from trl import DPOTrainer, GRPOTrainer, RewardTrainer, RLOOTrainer  # noqa: E402
from trl.trainer.utils import nanstd  # noqa: E402

from lmsi_jax.rl.advantages import batch_normalised, dr_grpo, grpo  # noqa: E402
from lmsi_jax.rl.config import Clip  # noqa: E402
from lmsi_jax.rl.divergence import estimate  # noqa: E402
from lmsi_jax.rl.losses import LOSSES, aggregate  # noqa: E402
from lmsi_jax.rl.preferences import bradley_terry, dpo  # noqa: E402
from tests.rl.batches import ragged  # noqa: E402

BETA, LENGTH = 0.1, 9


def trainer(**settings):
    """Stands for a trainer of trl on one device: an object with these attributes and mocks of all others."""
    accelerator = MagicMock(num_processes=1, device="cpu", gather=lambda x: x, reduce=lambda x, reduction: x)
    known = {
        "accelerator": accelerator,
        "model": SimpleNamespace(training=True),
        "beta": 0.0,
        "epsilon_low": 0.2,
        "epsilon_high": 0.28,
        "importance_sampling_level": "token",
        "max_completion_length": LENGTH,
        "current_gradient_accumulation_steps": 1,
        "top_entropy_quantile": 1.0,
        "off_policy_mask_threshold": None,
        "use_vllm": False,
        "aux_loss_enabled": False,
        "_entropy_bonus_enabled": False,
        "args": SimpleNamespace(use_bias_correction_kl=False, delta=None, steps_per_generation=1),
    }
    return MagicMock(**(known | settings))


def loss_and_gradient(kind, stub, batch, **more):
    """trl's loss and its gradient by the log-probabilities. Rows have one sequence each; mask: where there is a token."""
    logprobs, old, advantages, mask = batch
    leaf = torch.tensor(logprobs, requires_grad=True)
    stub._get_per_token_logps_and_entropies = lambda *_, **__: (leaf, torch.zeros(leaf.shape), None)
    ids = torch.zeros(leaf.shape, dtype=torch.long)
    inputs = {
        "prompt_ids": ids[:, :1],
        "prompt_mask": ids[:, :1],
        "completion_ids": ids,
        "completion_mask": torch.tensor(mask).double(),
        "old_per_token_logps": torch.tensor(old),
        "old_logps": torch.tensor((old * mask).sum(axis=1)),
        "advantages": torch.tensor(advantages),
        "num_items_in_batch": torch.tensor(float(mask.sum())),
        **{name: torch.tensor(value) for name, value in more.items()},
    }
    loss = kind._compute_loss(stub, None, inputs)
    loss.backward()
    return loss.item(), leaf.grad.numpy()


def one_sequence(seed):
    """(logprobs, old, advantages, mask), each row with one sequence of at least one token."""
    logprobs, old, advantages, segments = ragged(seed, rows=6, packed=False, extreme=seed % 2 == 1)
    segments[0, :3] = 1
    return logprobs, old, advantages, segments


CASES = {
    "ppo token": ("ppo", "token", Clip(), {"loss_type": "dapo"}),
    "ppo sequence": ("ppo", "sequence", Clip(), {"loss_type": "grpo"}),
    "ppo constant": ("ppo", "constant", Clip(), {"loss_type": "dr_grpo"}),
    "gspo": (
        "gspo",
        "sequence",
        Clip(3e-4, 4e-4),
        {"loss_type": "grpo", "importance_sampling_level": "sequence", "epsilon_low": 3e-4, "epsilon_high": 4e-4},
    ),
    "cispo": ("cispo", "token", Clip(), {"loss_type": "cispo", "epsilon_high": 1.28}),  # trl names the cap, not its distance
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("beta", [0.0, 0.05])
def test_policy_losses(case, beta):
    """Catches: an aggregation, a clip or a divergence that is not that of the name it has elsewhere."""
    name, how, clip, settings = CASES[case]
    with jax.enable_x64():
        for seed in range(20):
            logprobs, old, advantages, mask = one_sequence(seed)
            by_row = advantages.max(axis=1, where=mask > 0, initial=-np.inf)
            reference = logprobs + np.random.default_rng(seed).normal(size=logprobs.shape) * 0.3
            stub = trainer(beta=beta, **settings)
            batch = (logprobs, old, by_row, mask)
            expected, gradient = loss_and_gradient(GRPOTrainer, stub, batch, ref_per_token_logps=reference)

            def ours(x, old=old, by_row=by_row, mask=mask, reference=reference):
                a = jnp.broadcast_to(jnp.asarray(by_row)[:, None], x.shape)
                losses = LOSSES[name](x, jnp.asarray(old), a, jnp.asarray(mask), clip)
                if beta:
                    losses += beta * estimate(x, jnp.asarray(reference), "k3")
                return aggregate(losses, mask, how, LENGTH)

            loss, found = jax.value_and_grad(ours)(jnp.asarray(logprobs))
            np.testing.assert_allclose(loss, expected, rtol=1e-10)
            np.testing.assert_allclose(found, gradient, rtol=1e-10, atol=1e-300)


def test_the_loss_of_rloo_is_that_of_whole_sequences():
    """Catches: REINFORCE whose gradient is not that of RLOO for paths of the present policy."""
    with jax.enable_x64():
        logprobs, _, advantages, mask = one_sequence(2)
        by_row = advantages.max(axis=1, where=mask > 0, initial=-np.inf)
        _, gradient = loss_and_gradient(RLOOTrainer, trainer(), (logprobs, logprobs, by_row, mask))

        def ours(x):
            losses = LOSSES["reinforce"](x, x, jnp.asarray(by_row)[:, None] * jnp.ones_like(x), jnp.asarray(mask))
            return aggregate(losses, mask, "constant", 1)  # sums over sequences, divided by their number

        np.testing.assert_allclose(jax.grad(ours)(jnp.asarray(logprobs)), gradient, rtol=1e-10, atol=1e-300)


def test_advantages():
    """Catches: another degree of freedom or another small number under the standard deviation."""
    rewards = np.random.default_rng(0).normal(size=(5, 8))
    grouped = torch.tensor(rewards)
    centred = grouped - grouped.mean(dim=1, keepdim=True)
    np.testing.assert_allclose(dr_grpo(rewards), centred, rtol=1e-12)
    np.testing.assert_allclose(grpo(rewards), centred / (nanstd(grouped, dim=1)[:, None] + 1e-4), rtol=1e-6)
    ours = batch_normalised(rewards)
    np.testing.assert_allclose(ours.std(ddof=1), 1, rtol=1e-3)
    np.testing.assert_allclose(ours / ours[0, 0], (centred / centred[0, 0]).numpy(), rtol=1e-12)


@pytest.mark.parametrize("margin", [None, 0.7])
def test_the_loss_of_a_reward_model(margin):
    """Catches: a margin or a centring with another sign or factor."""
    rng = np.random.default_rng(1)
    chosen, rejected = rng.normal(size=(2, 7))
    logits = torch.tensor(np.concatenate([chosen, rejected])[:, None], requires_grad=True)
    stub = trainer(args=SimpleNamespace(center_rewards_coefficient=0.01), _total_train_tokens=0, _tp_size=1)
    inputs = {"attention_mask": torch.ones(14, 2), **({} if margin is None else {"margin": torch.full((7,), margin)})}
    stub.accelerator.gather_for_metrics = lambda x: x
    expected = RewardTrainer.compute_loss(stub, lambda **_: SimpleNamespace(logits=logits), inputs)
    expected.backward()
    with jax.enable_x64():
        ours = lambda c, r: bradley_terry(c, r, margin or 0.0, 0.01).mean()  # noqa: E731
        loss, gradients = jax.value_and_grad(ours, (0, 1))(jnp.asarray(chosen), jnp.asarray(rejected))
    np.testing.assert_allclose(loss, expected.item(), rtol=1e-7)  # its margin is of float32
    np.testing.assert_allclose(np.concatenate(gradients), logits.grad[:, 0], rtol=1e-6)


def test_the_loss_of_direct_preferences():
    """Catches: a margin that is averaged over tokens, or taken from the wrong side."""
    rng = np.random.default_rng(2)
    policy, reference = (torch.tensor(rng.normal(size=(6, 5)), requires_grad=True) for _ in range(2))

    def outputs(logprobs):
        zero = torch.zeros(logprobs.shape)  # of what it measures beside
        return lambda **_: SimpleNamespace(log_probs=logprobs, entropy=zero, mean_logits=zero, is_top1=zero > 0)

    stub = trainer(
        model=MagicMock(training=True),
        args=MagicMock(),
        ref_model=outputs(reference),
        beta=BETA,
        ld_alpha=None,
        precompute_ref_logps=False,
        f_divergence_type="reverse_kl",
        loss_types=["sigmoid"],
        loss_weights=[1.0],
        use_weighting=False,
        _total_train_tokens=0,
        _tp_size=1,
    )
    stub.accelerator.gather_for_metrics = lambda x: x
    ids = torch.ones(6, 6, dtype=torch.long)
    inputs = {"input_ids": ids, "completion_mask": ids, "attention_mask": ids}
    DPOTrainer._compute_loss(stub, outputs(policy), inputs, False).backward()
    with jax.enable_x64():

        def ours(x):
            ratios = (x - jnp.asarray(reference.detach().numpy())).sum(axis=1)
            return dpo(ratios[:3] - ratios[3:], BETA).mean()

        np.testing.assert_allclose(jax.grad(ours)(jnp.asarray(policy.detach().numpy())), policy.grad, rtol=1e-10)

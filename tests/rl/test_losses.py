"""Policy losses against loops of NumPy, by value and by gradient; and the identities between them."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmsi_jax.rl.config import Clip
from lmsi_jax.rl.losses import LOSSES, aggregate, is_clipped, sequence_mean, value_loss, weights
from tests.rl.batches import loss_and_gradient, ragged

HOW = ("token", "sequence", "constant")
CLIPS = (Clip(), Clip(0.2, 0.2, 3.0), Clip(3e-4, 4e-4))


def ours(name, how, length, batch, clip, dtype=jnp.float64):
    logprobs, old, advantages = (jnp.asarray(each, dtype) for each in batch[:3])
    segments = jnp.asarray(batch[3])
    loss = lambda x: aggregate(LOSSES[name](x, old, advantages, segments, clip), batch[3], how, length)  # noqa: E731
    return jax.value_and_grad(loss)(logprobs)


@pytest.mark.parametrize(("name", "how"), list(itertools.product(LOSSES, HOW)))
def test_losses_are_those_of_ten_lines_of_numpy(name, how):
    """Catches: a wrong sign, clip, aggregation or mask; a loss of float64 that is computed in float32."""
    with jax.enable_x64():
        for seed in range(25):
            for clip, extreme in itertools.product(CLIPS, (False, True)):
                batch = ragged(seed, extreme=extreme)
                expected = loss_and_gradient(name, how, 9, *batch, clip)
                loss, gradient = ours(name, how, 9, batch, clip)
                np.testing.assert_allclose(loss, expected[0], rtol=1e-10)
                np.testing.assert_allclose(gradient, expected[1], rtol=1e-10, atol=1e-300)
    loss32, gradient32 = ours(name, how, 9, batch := ragged(3), CLIPS[0], jnp.float32)
    expected = loss_and_gradient(name, how, 9, *batch, CLIPS[0])
    np.testing.assert_allclose(loss32, expected[0], rtol=1e-5)
    np.testing.assert_allclose(gradient32, expected[1], rtol=1e-4, atol=1e-7)


def test_the_weights_of_a_worked_example():
    """Catches: a length bias that nobody asked for. Two sequences of 2 and 3 tokens; the figures are published ones."""
    ratios = np.array([[1.5, 0.9, 1.0], [0.7, 1.1, 1.0]])
    advantages, segments = np.array([[1.0], [-1.0]]) * np.ones((2, 3)), np.array([[1, 1, 0], [1, 1, 1]], np.int32)
    published = {
        ("ppo", "sequence"): [0, 0.225, 0, -0.1833, -0.1667],
        ("ppo", "token"): [0, 0.18, 0, -0.22, -0.2],
        ("ppo", "constant"): [0, 0.1125, 0, -0.1375, -0.125],
        ("gspo", "sequence"): [0, 0, 0, 0, 0],
        ("cispo", "token"): [0.256, 0.18, -0.14, -0.22, -0.2],
    }
    with jax.enable_x64():
        for (name, how), expected in published.items():
            clip = Clip(3e-4, 4e-4) if name == "gspo" else Clip(0.2, 0.28)
            if how == "sequence" and name == "ppo":
                clip = Clip(0.2, 0.2)
            batch = (np.log(ratios) - 1, np.full((2, 3), -1.0), advantages, segments)
            _, gradient = ours(name, how, 4, batch, clip)
            np.testing.assert_allclose(-np.asarray(gradient)[segments > 0], expected, atol=6e-5, err_msg=f"{name} {how}")


def test_on_policy_losses_have_equal_gradients():
    """Catches: a loss that differs from REINFORCE where the policy is the one that sampled."""
    with jax.enable_x64():
        logprobs, _, advantages, segments = ragged(1)
        batch = (logprobs, logprobs, advantages, segments)
        gradient = {(name, how): np.asarray(ours(name, how, 9, batch, Clip())[1]) for name in LOSSES for how in HOW}
        for how in HOW:
            for name in ("ppo", "cispo"):
                np.testing.assert_allclose(gradient[name, how], gradient["reinforce", how], rtol=1e-12)
        np.testing.assert_allclose(gradient["gspo", "sequence"], gradient["reinforce", "sequence"], rtol=1e-12)
        ratio = gradient["ppo", "constant"][segments > 0] / gradient["ppo", "token"][segments > 0]
        np.testing.assert_allclose(ratio, ratio[0], rtol=1e-12)


def test_padding_and_splits_change_nothing():
    """Catches: PAD in a mean, a loss that depends on the microbatch or on the order of rows (bugs of several libraries)."""
    logprobs, old, advantages, segments = ragged(2, rows=6)
    filled = ((logprobs, -50.0), (old, 3.0), (advantages, 9.0))
    wide = [np.pad(each, ((0, 2), (0, 5)), constant_values=value) for each, value in filled]
    wide.append(np.pad(segments, ((0, 2), (0, 5))))
    with jax.enable_x64():
        for name, how in itertools.product(LOSSES, HOW):
            loss, gradient = ours(name, how, 9, (logprobs, old, advantages, segments), Clip())
            padded, padded_gradient = ours(name, how, 9, tuple(wide), Clip())
            np.testing.assert_allclose(padded, loss, rtol=1e-12)
            np.testing.assert_allclose(padded_gradient[:6, :9], gradient, rtol=1e-12)
            assert not np.asarray(padded_gradient)[6:].any() and not np.asarray(padded_gradient)[:, 9:].any()
            order = np.array([4, 1, 5, 0, 3, 2])
            weight = weights(segments, how, 9)
            total = 0.0
            for rows in np.split(order, 3):
                part = [jnp.asarray(each[rows]) for each in (logprobs, old, advantages, segments)]
                total += jnp.sum(LOSSES[name](*part, Clip()) * weight[rows])
            np.testing.assert_allclose(total / (segments > 0).sum(), loss, rtol=1e-12)


def test_a_batch_without_sequences_has_loss_zero():
    """Catches: a division by zero where all paths were left out."""
    batch = ragged(0)[:3] + (np.zeros((4, 9), np.int32),)
    for name, how in itertools.product(LOSSES, HOW):
        loss, gradient = ours(name, how, 9, batch, Clip(), jnp.float32)
        assert loss == 0 and not np.asarray(gradient).any()


def test_the_mean_of_a_sequence_is_its_own():
    """Catches: sequences of one row that are averaged together."""
    values, segments = np.arange(8.0).reshape(1, 8), np.array([[1, 1, 0, 2, 2, 2, 0, 0]], np.int32)
    mean = sequence_mean(jnp.asarray(values, jnp.float32), jnp.asarray(segments))
    np.testing.assert_allclose(mean, [[0.5, 0.5, 0, 4, 4, 4, 0, 0]])


def test_clipped_tokens_are_those_without_a_gradient():
    """Catches: a clip fraction that counts tokens whose gradient passes."""
    logprobs, old, advantages, segments = ragged(5, extreme=True)
    with jax.enable_x64():
        _, gradient = ours("ppo", "token", 9, (logprobs, old, advantages, segments), Clip())
        clipped = np.asarray(is_clipped(*(jnp.asarray(each) for each in (logprobs, old, advantages)), Clip()))
    inside = segments > 0
    assert (clipped[inside] == (np.asarray(gradient)[inside] == 0)).all() and 0 < clipped[inside].mean() < 1


def test_the_value_loss_is_clipped_from_the_worse_side():
    """Catches: a minimum in place of the maximum, and a gradient of a clipped value that moves on."""
    rng = np.random.default_rng(0)
    values, old, returns = rng.normal(size=(3, 4, 7))
    clipped = np.clip(values, old - 0.2, old + 0.2)
    expected = 0.5 * np.maximum((values - returns) ** 2, (clipped - returns) ** 2)
    with jax.enable_x64():
        arrays = [jnp.asarray(each) for each in (values, old, returns)]
        np.testing.assert_allclose(value_loss(*arrays), expected, rtol=1e-12)
        np.testing.assert_allclose(value_loss(*arrays, clip=0.0), 0.5 * (values - returns) ** 2, rtol=1e-12)

"""Gradients of matrix products that are written out, against those that JAX derives from the same product."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmsi_jax.model.products import attention_scores, project, weighted_values


def gradients_agree(ours: Callable[..., Any], plain: Callable[..., Any], shapes: list[tuple[int, ...]], dtype: str) -> None:
    """Compare the value and the gradient of each operand, under a random gradient of the result."""
    keys = jax.random.split(jax.random.key(0), len(shapes) + 1)
    operands = [jax.random.normal(key, shape).astype(dtype) for key, shape in zip(keys, shapes, strict=False)]
    (value, pull), (expected, pull_plain) = jax.vjp(ours, *operands), jax.vjp(plain, *operands)
    np.testing.assert_array_equal(value, expected)
    g = jax.random.normal(keys[-1], value.shape).astype(value.dtype)
    tolerance = 1e-5 if dtype == "float32" else 2e-2
    for mine, theirs, operand in zip(pull(g), pull_plain(g), operands, strict=True):
        assert mine.shape == operand.shape and mine.dtype == operand.dtype
        wide = np.asarray(theirs, np.float32)
        np.testing.assert_allclose(np.asarray(mine, np.float32), wide, atol=tolerance * np.abs(wide).max())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("matrix", [(8, 24), (24, 8), (8, 8), (8, 4, 3), (24, 2, 3)], ids=str)
def test_projection(matrix: tuple[int, ...], dtype: str) -> None:
    # Catches a gradient of a wide or a narrow matrix that is transposed, or mixes the axes of heads.
    for sum_dtype in (None, jnp.dtype("float32")):

        def plain(x: jax.Array, matrix: jax.Array, sum_dtype: jnp.dtype | None = sum_dtype) -> jax.Array:
            return jnp.einsum("nti,i...->nt...", x, matrix, preferred_element_type=sum_dtype).astype(x.dtype)

        gradients_agree(lambda x, w, s=sum_dtype: project(x, w, s), plain, [(3, 5, matrix[0]), matrix], dtype)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_attention(dtype: str) -> None:
    # Catches a gradient of keys or values with queries and slots swapped.
    shapes: dict[str, tuple[int, ...]] = {"q": (2, 3, 7, 4), "s": (2, 3, 5, 4), "qs": (2, 3, 7, 5)}
    scores = lambda q, k: jnp.einsum("akqh,aksh->akqs", q, k, preferred_element_type=jnp.float32)  # noqa: E731
    read = lambda w, v: jnp.einsum("akqs,aksh->akqh", w, v, preferred_element_type=jnp.float32)  # noqa: E731
    gradients_agree(attention_scores, scores, [shapes["q"], shapes["s"]], dtype)
    gradients_agree(weighted_values, read, [shapes["qs"], shapes["s"]], dtype)

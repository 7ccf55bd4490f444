"""Matrix products whose gradients name the narrower operand first.

JAX's rule for a product always puts the incoming gradient on the left. Where that is the wider operand, XLA transposes it on a
CPU, and the gradients of weights, keys and values take twice the time. Here the narrower operand is on the left, and the
result, which is small, is transposed if need be.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def _project(x: Float[Array, "n t i"], matrix: Float[Array, "i *o"], sum_dtype: jnp.dtype | None) -> Float[Array, "n t *o"]:
    """Return `x` times `matrix` in the dtype of `x`. Sums are in `sum_dtype` before they are rounded; None: as JAX chooses."""
    return jnp.einsum("nti,i...->nt...", x, matrix, preferred_element_type=sum_dtype).astype(x.dtype)


def _project_backward(sum_dtype: jnp.dtype | None, operands: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    x, matrix = operands
    g, flat = g.reshape(*g.shape[:2], -1), matrix.reshape(len(matrix), -1)
    product = functools.partial(jnp.einsum, preferred_element_type=sum_dtype)
    of_x = product("nto,io->nti", g, flat)
    of_matrix = product("nti,nto->io", x, g) if x.shape[-1] <= g.shape[-1] else _turned(product("nto,nti->oi", g, x))
    return of_x.astype(x.dtype), of_matrix.reshape(matrix.shape).astype(matrix.dtype)


def _scores(query: Float[Array, "a k q h"], key: Float[Array, "a k s h"]) -> Float[Array, "a k q s"]:
    """Return the products of queries and keys, in float32."""
    return jnp.einsum("akqh,aksh->akqs", query, key, preferred_element_type=jnp.float32)


def _scores_backward(operands: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    query, key = operands
    return _values(g, key).astype(query.dtype), _over_queries(query, g).astype(key.dtype)


def _values(weights: Float[Array, "a k q s"], value: Float[Array, "a k s h"]) -> Float[Array, "a k q h"]:
    """Return the sums of values over slots, times their weights, in float32."""
    return jnp.einsum("akqs,aksh->akqh", weights, value, preferred_element_type=jnp.float32)


def _values_backward(operands: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    weights, value = operands
    return _scores(g, value).astype(weights.dtype), _over_queries(g, weights).astype(value.dtype)


def _over_queries(rows: Float[Array, "a k q h"], weights: Float[Array, "a k q s"]) -> Float[Array, "a k s h"]:
    """Return the sums of rows over queries, times their weights."""
    return _turned(jnp.einsum("akqh,akqs->akhs", rows, weights))


def _turned(product: Array) -> Array:
    """Swap the last two axes of a product. Without the barrier, XLA would swap the operands of the product instead."""
    return jax.lax.optimization_barrier(product).swapaxes(-1, -2)


# The rules below call the plain functions, so that recomputation (`remat`) sees a matrix product and can keep its result.
project = jax.custom_vjp(_project, nondiff_argnums=(2,))
project.defvjp(lambda x, matrix, sum_dtype: (_project(x, matrix, sum_dtype), (x, matrix)), _project_backward)
attention_scores = jax.custom_vjp(_scores)
attention_scores.defvjp(lambda query, key: (_scores(query, key), (query, key)), _scores_backward)
weighted_values = jax.custom_vjp(_values)
weighted_values.defvjp(lambda weights, value: (_values(weights, value), (weights, value)), _values_backward)

"""Random keys that depend on the path, not on the batch that it is decoded in."""

import hashlib

import jax
from jaxtyping import Array, Int, Key


def stable_hash(text: str) -> int:
    """Return a 31-bit hash of `text` that is the same in every process (unlike `hash`)."""
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def stage_key(seed: int, *names: str | int) -> Key[Array, ""]:
    """Return the key of a stage: the key of the run's seed, with the stage's names folded in, in order."""
    key = jax.random.key(seed)
    for name in names:
        key = jax.random.fold_in(key, name if isinstance(name, int) else stable_hash(name))
    return key


def path_keys(stage: Key[Array, ""], question: Int[Array, " n"], path: Int[Array, " n"]) -> Key[Array, " n"]:
    """Return one key per path: ``fold_in(fold_in(stage, question), path)``.

    `question` contains `stable_hash(question_id)`. Fold the token position in to get a token's key:
    the draw then depends only on (seed, stage names, question, path, position).
    """
    fold = jax.vmap(lambda q, p: jax.random.fold_in(jax.random.fold_in(stage, q), p))
    return fold(question, path)

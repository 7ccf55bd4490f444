"""Our checkpoints in EleutherAI's lm-evaluation-harness, in this process and without torch.

    python -m lmsi_jax.evaluation.harness --model lmsi --model_args checkpoint=DIR --tasks gsm8k,arc_challenge

takes the harness's own flags. It needs `pip install lm-eval`, and its tasks need their data sets.
"""

import functools
import os
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from lmsi_jax import model
from lmsi_jax.checkpoint import folder
from lmsi_jax.core import rng
from lmsi_jax.core.config import MeshConfig, ModelConfig
from lmsi_jax.core.errors import UserError
from lmsi_jax.decoding.scheduler import Decoder, Decoding, Request
from lmsi_jax.sharding import jit, make_mesh, sharding, use_mesh

MAX_TOKENS = 256  # of a generation for which the task names no length
BUCKET = 64  # lengths are rounded up to multiples of this, so that few programs compile


@register_model("lmsi")
class HarnessModel(TemplateLM):
    """A checkpoint folder, ours or one of Hugging Face, or "builtin", behind the interface of the harness."""

    def __init__(
        self,
        checkpoint: str = "builtin",
        batch_size: int | str = 8,
        fsdp: int = 1,
        tensor: int = 1,
        seed: int = 0,
        **kwargs: Any,
    ):
        """`batch_size`: rows at a time, a multiple of data x fsdp devices; `fsdp`, `tensor`: of the mesh."""
        super().__init__()
        unknown = kwargs.keys() - {"device", "max_batch_size", "trust_remote_code"}  # those that the harness adds
        if unknown:
            raise UserError(f"model_args has {', '.join(unknown)}; there are checkpoint, batch_size, fsdp, tensor, seed.")
        self._mesh = make_mesh(MeshConfig(data=-1, fsdp=int(fsdp), tensor=int(tensor)))
        self._checkpoint, self._seed = checkpoint, int(seed)
        self._config = folder.load_config(checkpoint)
        self._tokens = folder.load_tokenizer(checkpoint)
        parts = self._mesh.size("batch")
        self._rows = -(-(8 if batch_size == "auto" else int(batch_size)) // parts) * parts

    @functools.cached_property
    def _params(self) -> model.Params:
        return folder.load_params(self._checkpoint, self._mesh)

    @property
    def eot_token_id(self) -> int:
        return self._tokens.eos

    @property
    def prefix_token_id(self) -> int:
        return self._tokens.bos if self._tokens.bos >= 0 else self._tokens.eos

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        return self._tokens.encode(string) if add_special_tokens is False else self._tokens.start(string)

    def _loglikelihood_tokens(self, requests: Any, **kwargs: Any) -> list[tuple[float, bool]]:
        """(log-probability, is it what greedy decoding writes?) of each continuation; long contexts lose their beginning."""
        rows = [((before + after)[-self._config.context :], len(after)) for _, before, after in requests]
        for tokens, scored in rows:
            if scored >= len(tokens):
                raise UserError(f"A continuation of {scored} tokens does not fit the context of {self._config.context}.")
        order = sorted(range(len(rows)), key=lambda i: -len(rows[i][0]))
        found: list[tuple[float, bool]] = [(0.0, False)] * len(rows)
        with use_mesh(self._mesh):
            for first in range(0, len(order), self._rows):
                chosen = order[first : first + self._rows]
                for i, result in zip(chosen, self._score([rows[i] for i in chosen]), strict=True):
                    found[i] = result
        return found

    def _score(self, rows: Sequence[tuple[list[int], int]]) -> Iterator[tuple[float, bool]]:
        longest = -(-max(len(tokens) for tokens, _ in rows) // BUCKET) * BUCKET
        tokens = np.zeros((self._rows, longest), np.int32)
        for row, (ids, _) in enumerate(rows):
            tokens[row, : len(ids)] = ids
        placed = jax.device_put(tokens, sharding(self._mesh, "batch", None))
        logprob, greedy = jax.device_get(token_logprobs(self._config, self._params, placed))
        for row, (ids, scored) in enumerate(rows):
            inside = slice(len(ids) - scored - 1, len(ids) - 1)
            yield float(logprob[row, inside].sum(dtype=np.float64)), bool(greedy[row, inside].all())

    def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> list[float]:
        """The log-probability of each whole text, in windows as long as the context."""
        totals = []
        for text in (request.args[0] for request in requests):
            windows = get_rolling_token_windows(
                self._tokens.encode(text),
                prefix_token=self.prefix_token_id,
                max_seq_len=self._config.context - 1,
                context_len=1,
            )
            pairs = [(("", ""), *make_disjoint_window(window)) for window in windows]
            totals.append(sum(logprob for logprob, _ in self._loglikelihood_tokens(pairs)))
        return totals

    def generate_until(self, requests: Any, disable_tqdm: bool = False) -> list[str]:
        """What follows each context, up to a stop string; requests of the same settings are decoded together."""
        alike: dict[tuple, list[int]] = {}
        for number, request in enumerate(requests):
            alike.setdefault(generation(request.args[1]), []).append(number)
        rooms = [self._room(max_tokens) for _, max_tokens, *_ in alike]  # checked before any is decoded
        texts: dict[int, str] = {}
        for room, ((stops, max_tokens, temperature, top_k, top_p), numbers) in zip(rooms, alike.items(), strict=True):
            rows = min(self._rows, -(-len(numbers) // self._mesh.size("batch")) * self._mesh.size("batch"))
            decoding = Decoding(1, temperature, max_tokens, rows, 1, top_k=top_k, top_p=top_p, stops=stops)
            prompts = {i: self._tokens.start(requests[i].args[0]) or [self.prefix_token_id] for i in numbers}
            long = {i: ids[-room:] for i, ids in prompts.items() if len(ids) > room}  # long contexts lose their beginning
            for some in ({i: ids for i, ids in prompts.items() if i not in long}, long):
                texts |= self._generate(some, decoding) if some else {}
        return [texts[i] for i in range(len(requests))]

    def _room(self, max_tokens: int) -> int:
        """How many tokens a prompt may have before a generation of this length. Raises UserError when there is none."""
        room = self._config.context - max_tokens
        if room < 1:
            raise UserError(
                f"max_gen_toks={max_tokens} leaves no room for a prompt in the model's context of {self._config.context}; set "
                f"a smaller one in the task's generation_kwargs or with --gen_kwargs."
            )
        return room

    def _generate(self, prompts: dict[int, list[int]], decoding: Decoding) -> dict[int, str]:
        """The text that follows each of several prompts; what they all begin with, such as exemplars, is computed once."""
        shared = os.path.commonprefix(list(prompts.values())) if len(prompts) > 1 else []
        shared = shared[: min(map(len, prompts.values())) - 1]  # a request has at least one token of its own
        requests = [Request(str(i), tokens=tuple(ids[len(shared) :])) for i, ids in prompts.items()]
        longest = max(map(len, prompts.values())) - len(shared)
        with use_mesh(self._mesh):
            key = rng.stage_key(self._seed, "harness")
            decoder = Decoder(self._mesh, self._config, self._params, self._tokens, decoding, shared, longest, key)
            return {int(paths[0].id): paths[0].text for paths in decoder.run(requests)}


def generation(kwargs: dict[str, Any]) -> tuple[tuple[str, ...], int, float, int, float]:
    """(stop strings, longest, temperature, top-k, top-p) of the harness's keyword arguments, of which each may be None."""
    until = kwargs.get("until") or ()
    stops = (until,) if isinstance(until, str) else tuple(until)
    temperature = float(kwargs.get("temperature") or 0.0) if kwargs.get("do_sample") else 0.0
    longest = kwargs.get("max_gen_toks") or kwargs.get("max_new_tokens") or kwargs.get("max_tokens") or MAX_TOKENS
    top_p = kwargs.get("top_p")
    return stops, int(longest), temperature, int(kwargs.get("top_k") or 0), 1.0 if top_p is None else float(top_p)


@functools.partial(jit, static_argnums=(0,))
def token_logprobs(
    config: ModelConfig, params: model.Params, tokens: Int[Array, "n t"]
) -> tuple[Float[Array, "n t-1"], Bool[Array, "n t-1"]]:
    """Of each token after the first: its log-probability, and whether it is the likeliest."""
    n, t = tokens.shape
    positions = jnp.broadcast_to(jnp.arange(t)[None, :], (n, t))
    causal = jnp.broadcast_to(jnp.tril(jnp.ones((t, t), bool))[None], (n, t, t))
    logits, _ = model.forward(config, params, tokens, positions, causal)
    logprobs = jax.nn.log_softmax(logits[:, :-1], axis=-1)
    chosen = jnp.take_along_axis(logprobs, tokens[:, 1:, None], axis=-1)[..., 0]
    return chosen, jnp.argmax(logprobs, axis=-1) == tokens[:, 1:]


if __name__ == "__main__":
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()

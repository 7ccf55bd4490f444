"""Evaluate our checkpoints with EleutherAI's lm-evaluation-harness, in this process and without torch.

    python -m lmsi_jax.evaluation.harness --model lmsi --model_args checkpoint=DIR --tasks gsm8k,arc_challenge

takes the harness's own flags. It requires `pip install lm-eval`, and its tasks require their data sets.
"""

import functools
import os
from typing import Any

import jax
import numpy as np
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from lmsi_jax.checkpoint import folder
from lmsi_jax.checkpoint.config import Numerics, resolve_numerics
from lmsi_jax.core import rng
from lmsi_jax.core.errors import UserError
from lmsi_jax.decoding.config import Sampling
from lmsi_jax.decoding.engine import Limits
from lmsi_jax.decoding.scheduler import Engine, Request
from lmsi_jax.decoding.score import score
from lmsi_jax.model import transformer
from lmsi_jax.sharding.config import MeshConfig
from lmsi_jax.sharding.mesh import make_mesh
from lmsi_jax.sharding.rules import use_mesh

MAX_TOKENS = 256  # of a generation when the task sets no limit


@register_model("lmsi")
class HarnessModel(TemplateLM):
    """A checkpoint behind the model interface of the harness: our folder, a Hugging Face folder, or "builtin"."""

    def __init__(
        self,
        checkpoint: str = "builtin",
        batch_size: int | str = 8,
        fsdp: int = 1,
        tensor: int = 1,
        seed: int = 0,
        **kwargs: Any,
    ):
        """Load the config and tokenizer of `checkpoint`.

        `batch_size` is the number of rows at a time ("auto" = 8), rounded up to a multiple of the data x fsdp devices. `fsdp`
        and `tensor` are sizes of mesh axes. Raises UserError for unknown `kwargs`.
        """
        super().__init__()
        unknown = kwargs.keys() - {"device", "max_batch_size", "trust_remote_code"}  # arguments that the harness adds
        if unknown:
            raise UserError(f"model_args has {', '.join(unknown)}; valid names are checkpoint, batch_size, fsdp, tensor, seed.")
        self._mesh = make_mesh(MeshConfig(data=-1, fsdp=int(fsdp), tensor=int(tensor)))
        self._checkpoint, self._seed = checkpoint, int(seed)
        self._config = resolve_numerics(Numerics(), jax.default_backend()).of(folder.load_config(checkpoint))
        self._tokens = folder.load_tokenizer(checkpoint)
        parts = self._mesh.size("batch")
        self._rows = -(-(8 if batch_size == "auto" else int(batch_size)) // parts) * parts

    @functools.cached_property
    def _params(self) -> transformer.Params:
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
        """Return (log-probability, whether it is the greedy one) of each continuation. Long contexts lose their beginning."""
        rows = [((before + after)[-self._config.context :], len(after)) for _, before, after in requests]
        for tokens, scored in rows:
            if scored >= len(tokens):
                raise UserError(f"A continuation of {scored} tokens does not fit the context of {self._config.context}.")
        scores = score(self._mesh, self._config, self._params, [tokens for tokens, _ in rows], self._rows)
        return [
            (float(each.logprobs[-scored:].sum(dtype=np.float64)), bool(each.likeliest[-scored:].all()))
            for each, (_, scored) in zip(scores, rows, strict=True)
        ]

    def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> list[float]:
        """Return the log-probability of each text, summed over windows as long as the context."""
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
        """Return the completion of each context, up to a stop string. Requests with equal settings are decoded together."""
        groups: dict[tuple, list[int]] = {}
        for number, request in enumerate(requests):
            groups.setdefault(generation(request.args[1]), []).append(number)
        rooms = [self._room(max_tokens) for _, max_tokens, *_ in groups]  # checked before any group is decoded
        texts: dict[int, str] = {}
        for room, ((stops, max_tokens, temperature, top_k, top_p), numbers) in zip(rooms, groups.items(), strict=True):
            rows = min(self._rows, -(-len(numbers) // self._mesh.size("batch")) * self._mesh.size("batch"))
            sampling = Sampling(paths=1, temperature=temperature, max_tokens=max_tokens, top_k=top_k, top_p=top_p, stops=stops)
            prompts = {i: self._tokens.start(requests[i].args[0]) or [self.prefix_token_id] for i in numbers}
            long = {i: ids[-room:] for i, ids in prompts.items() if len(ids) > room}  # long contexts lose their beginning
            for batch in ({i: ids for i, ids in prompts.items() if i not in long}, long):
                texts |= self._generate(batch, sampling, rows) if batch else {}
        return [texts[i] for i in range(len(requests))]

    def _room(self, max_tokens: int) -> int:
        """Return how many prompt tokens fit before a generation of this length. Raises UserError when none do."""
        room = self._config.context - max_tokens
        if room < 1:
            raise UserError(
                f"max_gen_toks={max_tokens} leaves no room for a prompt in the model's context of {self._config.context}; set "
                f"a smaller one in the task's generation_kwargs or with --gen_kwargs."
            )
        return room

    def _generate(self, prompts: dict[int, list[int]], sampling: Sampling, rows: int) -> dict[int, str]:
        """Return the completion of each prompt. The prefix that all prompts share, such as exemplars, is computed once."""
        shared = os.path.commonprefix(list(prompts.values())) if len(prompts) > 1 else []
        shared = shared[: min(map(len, prompts.values())) - 1]  # a request has at least one token of its own
        requests = [Request(str(i), tokens=tuple(ids[len(shared) :])) for i, ids in prompts.items()]
        longest = max(map(len, prompts.values())) - len(shared)
        limits = Limits(rows, 1, 1, sampling.max_tokens, longest)
        with use_mesh(self._mesh):
            engine = Engine(self._mesh, self._config, self._tokens, limits)
            prefix, key = engine.prefill(self._params, shared), rng.stage_key(self._seed, "harness")
            sampled = engine.sample(self._params, prefix, requests, sampling, key)
            return {int(paths[0].id): paths[0].text for paths in sampled}


def generation(kwargs: dict[str, Any]) -> tuple[tuple[str, ...], int, float, int, float]:
    """Return (stop strings, token limit, temperature, top-k, top-p) of the harness's keyword arguments, which may be None."""
    until = kwargs.get("until") or ()
    stops = (until,) if isinstance(until, str) else tuple(until)
    temperature = float(kwargs.get("temperature") or 0.0) if kwargs.get("do_sample") else 0.0
    longest = kwargs.get("max_gen_toks") or kwargs.get("max_new_tokens") or kwargs.get("max_tokens") or MAX_TOKENS
    top_p = kwargs.get("top_p")
    return stops, int(longest), temperature, int(kwargs.get("top_k") or 0), 1.0 if top_p is None else float(top_p)


if __name__ == "__main__":
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()

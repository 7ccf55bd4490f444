"""The decoding workloads on other engines, if they are installed (`pip install -e '.[peers]'`)."""

import ctypes
import importlib.util
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from lmsi_jax.benchmarks.workloads import Ids, Workload
from lmsi_jax.model.config import ModelConfig

Measure = Callable[[int], float]  # seed -> generated tokens per second, including prefill


def installed(workload: Workload, paths: int, new_tokens: int) -> dict[str, Measure]:
    """Return a measurement for each installed engine and number format, by name.

    It samples `paths` completions of `new_tokens` tokens for one prompt, in the way that the engine's users would.
    """
    engines: dict[str, tuple[str, Callable[..., Measure], Sequence[str]]] = {
        "transformers": ("torch", _transformers, ("float32", "bfloat16")),
        "google-tunix": ("tunix", _tunix, ("float32",)),
        "llama.cpp": ("llama_cpp", _llama_cpp, ("F32", "BF16", "Q8_0")),
    }
    return {
        f"{name} {dtype}": build(workload, paths, new_tokens, dtype)
        for name, (module, build, dtypes) in engines.items()
        if importlib.util.find_spec(module)
        for dtype in dtypes
    }


def _prompt(workload: Workload, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, workload.model.vocab - 1, (workload.task + workload.question,))


def transformers_model(c: ModelConfig) -> Any:
    """Return a transformers Llama of this shape with random weights."""
    import transformers

    config = transformers.LlamaConfig(
        vocab_size=c.vocab,
        hidden_size=c.width,
        intermediate_size=c.mlp,
        num_hidden_layers=c.layers,
        num_attention_heads=c.heads,
        num_key_value_heads=c.kv_heads,
        max_position_embeddings=c.context,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=0,
    )
    return transformers.LlamaForCausalLM(config)


def tunix_shape(c: ModelConfig) -> Any:
    """Return the tunix config of this shape."""
    from tunix.models.llama3 import model as llama

    return llama.ModelConfig(
        num_layers=c.layers,
        vocab_size=c.vocab,
        embed_dim=c.width,
        hidden_dim=c.mlp,
        num_heads=c.heads,
        head_dim=c.head_width,
        num_kv_heads=c.kv_heads,
        rope_theta=10_000,
        norm_eps=1e-6,
        weight_tying=True,
    )


def _transformers(workload: Workload, paths: int, new_tokens: int, dtype: str) -> Measure:
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = transformers_model(workload.model).to(device, getattr(torch, dtype)).eval()

    def measure(seed: int) -> float:
        prompt = torch.tensor(_prompt(workload, seed), device=device)[None]
        start = time.perf_counter()
        with torch.inference_mode():
            out = model.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                do_sample=True,
                temperature=0.7,
                top_k=0,
                num_return_sequences=paths,
                max_new_tokens=new_tokens,
                min_new_tokens=new_tokens,
            )
        return (out.shape[1] - prompt.shape[1]) * paths / (time.perf_counter() - start)

    return measure


def _tunix(workload: Workload, paths: int, new_tokens: int, dtype: str) -> Measure:
    from flax import nnx
    from tunix.generate import sampler as tunix
    from tunix.models.llama3 import model as llama

    c = workload.model
    length = workload.task + workload.question
    cache = tunix.CacheConfig(length + new_tokens, c.layers, c.kv_heads, c.head_width)
    engine = tunix.Sampler(llama.Llama3(tunix_shape(c), rngs=nnx.Rngs(0)), _TunixIds(c.vocab), cache)

    def draw(seed: int) -> float:
        text = " ".join(map(str, _prompt(workload, seed)))
        start = time.perf_counter()
        engine([text] * paths, new_tokens, length, temperature=0.7, top_p=1.0, eos_tokens=[c.vocab], seed=seed)
        return new_tokens * paths / (time.perf_counter() - start)

    def measure(seed: int) -> float:
        if seed == 0:
            draw(1)  # compiles
        return draw(seed)

    return measure


class _TunixIds(Ids):
    """`Ids` with the tokenizer interface of tunix."""

    def encode(self, text: str, **kwargs: Any) -> list[int]:
        return super().encode(text)

    def bos_id(self) -> int:
        return 0

    def eos_id(self) -> int:
        return self.vocab

    pad_id = bos_id


def _llama_cpp(workload: Workload, paths: int, new_tokens: int, kind: str) -> Measure:
    """Measure llama.cpp at its best: all sequences share one prefill of the prompt, and its own samplers sample."""
    import llama_cpp as llama

    llama.llama_log_set(_silent, ctypes.c_void_p(0))
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "random.gguf")
        _write_gguf(workload, kind, path)
        model = llama.llama_model_load_from_file(path.encode(), llama.llama_model_default_params())
    length = workload.task + workload.question
    options = llama.llama_context_default_params()
    options.n_ctx = length + paths * new_tokens
    options.n_batch = options.n_ubatch = max(512, paths)
    options.n_seq_max, options.kv_unified = paths, True
    options.n_threads = options.n_threads_batch = os.cpu_count() or 1
    context = llama.llama_init_from_model(model, options)
    sampler = llama.llama_sampler_chain_init(llama.llama_sampler_chain_default_params())
    for step in (llama.llama_sampler_init_temp(0.7), llama.llama_sampler_init_dist(0)):
        llama.llama_sampler_chain_add(sampler, step)

    def measure(seed: int) -> float:
        memory = llama.llama_get_memory(context)
        llama.llama_memory_clear(memory, True)
        prompt = _prompt(workload, seed)
        batch = llama.llama_batch_init(max(len(prompt), paths), 0, 1)

        def run(
            tokens: Sequence[int] | np.ndarray, positions: Sequence[int], sequences: Sequence[int], outputs: Sequence[bool]
        ) -> None:
            batch.n_tokens = len(tokens)
            for i, (token, position, sequence, output) in enumerate(zip(tokens, positions, sequences, outputs, strict=True)):
                batch.token[i], batch.pos[i], batch.logits[i] = int(token), position, output
                batch.n_seq_id[i], batch.seq_id[i][0] = 1, sequence
            assert llama.llama_decode(context, batch) == 0, "llama.cpp could not decode"

        start, n = time.perf_counter(), len(prompt)
        run(prompt, range(n), [0] * n, [i == n - 1 for i in range(n)])
        for path in range(1, paths):
            llama.llama_memory_seq_cp(memory, 0, path, -1, -1)
        tokens = [llama.llama_sampler_sample(sampler, context, n - 1) for _ in range(paths)]
        for position in range(n, n + new_tokens - 1):
            run(tokens, [position] * paths, range(paths), [True] * paths)
            tokens = [llama.llama_sampler_sample(sampler, context, i) for i in range(paths)]
        seconds = time.perf_counter() - start
        llama.llama_batch_free(batch)
        return new_tokens * paths / seconds

    return measure


def _write_gguf(workload: Workload, kind: str, path: str) -> None:
    """Write random weights in llama.cpp's format."""
    import gguf

    c, rng = workload.model, np.random.default_rng(0)
    file = gguf.GGUFWriter(path, "llama")
    file.add_vocab_size(c.vocab)
    file.add_context_length(1 << 16)
    file.add_embedding_length(c.width)
    file.add_block_count(c.layers)
    file.add_feed_forward_length(c.mlp)
    file.add_head_count(c.heads)
    file.add_head_count_kv(c.kv_heads)
    file.add_rope_dimension_count(c.head_width)
    file.add_layer_norm_rms_eps(c.norm_epsilon)
    file.add_tokenizer_model("no_vocab")
    type = gguf.GGMLQuantizationType[kind]

    def weight(name: str, *shape: int) -> None:
        values = rng.normal(0, 1 / np.sqrt(shape[-1]), shape).astype(np.float32)
        file.add_tensor(f"{name}.weight", gguf.quantize(values, type), raw_dtype=type)

    def norm(name: str) -> None:
        file.add_tensor(f"{name}.weight", np.ones(c.width, np.float32))

    weight("token_embd", c.vocab, c.width)
    norm("output_norm")
    for i in range(c.layers):
        norm(f"blk.{i}.attn_norm")
        norm(f"blk.{i}.ffn_norm")
        for name, heads in (("q", c.heads), ("k", c.kv_heads), ("v", c.kv_heads)):
            weight(f"blk.{i}.attn_{name}", heads * c.head_width, c.width)
        weight(f"blk.{i}.attn_output", c.width, c.heads * c.head_width)
        weight(f"blk.{i}.ffn_gate", c.mlp, c.width)
        weight(f"blk.{i}.ffn_up", c.mlp, c.width)
        weight(f"blk.{i}.ffn_down", c.width, c.mlp)
    file.write_header_to_file()
    file.write_kv_data_to_file()
    file.write_tensors_to_file()
    file.close()


@ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
def _silent(level: int, text: bytes, data: Any) -> None:
    """Discard llama.cpp's log messages."""

"""Small random models made with `transformers`: odd sizes, grouped heads, every special feature of the family on."""

from pathlib import Path

import torch
import transformers as hf

hf.logging.set_verbosity_error()
hf.logging.disable_progress_bar()

VOCAB, WINDOW = 134, 7
SIZES = dict(
    vocab_size=VOCAB, hidden_size=48, intermediate_size=88, num_hidden_layers=4, num_attention_heads=6,
    num_key_value_heads=2, max_position_embeddings=512, bos_token_id=1, eos_token_id=2, pad_token_id=0,
)  # fmt: skip
LLAMA3 = dict(
    rope_type="llama3", rope_theta=5e5, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
    original_max_position_embeddings=64,
)  # fmt: skip
GEMMA = dict(head_dim=12, sliding_window=WINDOW, query_pre_attn_scalar=20)
GEMMA3_ROPE = {
    "full_attention": dict(rope_type="linear", factor=8.0, rope_theta=1e6),
    "sliding_attention": dict(rope_type="default", rope_theta=1e4),
}
FAMILIES = {
    "llama2": hf.LlamaConfig(**{**SIZES, "num_key_value_heads": 6}),
    "llama3": hf.LlamaConfig(**SIZES, head_dim=10, tie_word_embeddings=True, rope_parameters=LLAMA3),
    "mistral": hf.MistralConfig(**SIZES, sliding_window=WINDOW),
    "qwen2": hf.Qwen2Config(**SIZES, tie_word_embeddings=True),
    "qwen2-window": hf.Qwen2Config(**SIZES, use_sliding_window=True, sliding_window=WINDOW, max_window_layers=2),
    "qwen3": hf.Qwen3Config(**SIZES, head_dim=14),
    "mixtral": hf.MixtralConfig(**SIZES, num_local_experts=5, num_experts_per_tok=2),
    "qwen2-moe": hf.Qwen2MoeConfig(
        **SIZES,
        num_experts=6,
        num_experts_per_tok=3,
        moe_intermediate_size=20,
        shared_expert_intermediate_size=36,
    ),
    "qwen3-moe": hf.Qwen3MoeConfig(
        **SIZES,
        head_dim=14,
        num_experts=6,
        num_experts_per_tok=2,
        moe_intermediate_size=20,
        norm_topk_prob=True,
        mlp_only_layers=[1],
        decoder_sparse_step=1,
    ),
    "gemma": hf.GemmaConfig(**{**SIZES, "num_key_value_heads": 1}, head_dim=12),
    "gemma2": hf.Gemma2Config(**SIZES, **GEMMA, attn_logit_softcapping=5.0, final_logit_softcapping=3.0),
    "gemma3": hf.Gemma3TextConfig(**{**SIZES, "num_hidden_layers": 7}, **GEMMA, rope_parameters=GEMMA3_ROPE),
}


def make(name: str, dtype=torch.float32) -> hf.PreTrainedModel:
    """A model whose norms, biases and logits are far from trivial, as those of a trained one are."""
    torch.manual_seed(0)
    model = hf.AutoModelForCausalLM.from_config(FAMILIES[name]).to(dtype).eval()
    with torch.no_grad():
        for path, weight in model.named_parameters():
            noise = torch.randn(weight.shape).to(dtype)
            if "norm" in path or "bias" in path:
                weight.add_(0.3 * noise)
            else:
                weight.mul_(3)
    return model


def save(name: str, folder: Path, dtype=torch.float32, **how) -> hf.PreTrainedModel:
    """Make a model and write its folder, without a tokenizer."""
    model = make(name, dtype)
    model.save_pretrained(folder, **how)
    return model

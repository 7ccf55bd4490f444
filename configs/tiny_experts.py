"""The built-in model with eight experts of half its MLP's width, of which a token uses two: as many operations a token.

lmsi pretrain --config=configs/tiny_experts.py --workdir=runs/experts
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "seed": 0,
            "model": {
                "vocab": 768,
                "width": 128,
                "layers": 4,
                "heads": 4,
                "kv_heads": 2,
                "head_width": 32,
                "mlp": 512,
                "experts": {"count": 8, "per_token": 2, "mlp": 256},
                "scaled_embedding": True,
            },
            "mesh": {"data": -1},
            "corpus": {"documents": 64_000, "terms": (2, 5), "largest": 199, "sloppy": 0.4, "mistake": 0.25},
            "train": {
                "steps": 1300,
                "batch": 32,
                "accumulate": 2,
                "row_length": 256,
                "learning_rate": 2e-3,
                "warmup": 100,
                "weight_decay": 0.1,
                "save_every": 200,
                "log_every": 20,
            },
        }
    )

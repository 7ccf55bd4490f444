"""The built-in base model: 1.1M parameters, trained from scratch on generated word problems.

lmsi pretrain --config=configs/tiny_base.py --workdir=runs/base
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

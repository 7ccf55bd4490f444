"""A larger base model: 4M parameters, on the corpus of the built-in model.

lmsi pretrain --config=configs/tiny_base_large.py --workdir=runs/large
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "seed": 0,
            "model": {
                "vocab": 768,
                "width": 256,
                "layers": 5,
                "heads": 8,
                "kv_heads": 2,
                "head_width": 32,
                "mlp": 768,
                "scaled_embedding": True,
            },
            "mesh": {"data": -1, "cpu_devices": 2},
            "corpus": {"documents": 64_000, "terms": (2, 5), "largest": 199, "sloppy": 0.4, "mistake": 0.25},
            "train": {
                "steps": 1500,
                "batch": 32,
                "accumulate": 2,
                "row_length": 256,
                "learning_rate": 0.002,
                "warmup": 100,
                "weight_decay": 0.1,
                "save_every": 100,
                "log_every": 20,
            },
        }
    )

"""A smaller base model: 0.3M parameters and a vocabulary of 512, on the corpus of the built-in model.

lmsi pretrain --config=configs/tiny_base_small.py --workdir=runs/small
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "seed": 0,
            "model": {
                "vocab": 512,
                "width": 64,
                "layers": 5,
                "heads": 4,
                "kv_heads": 2,
                "head_width": 16,
                "mlp": 192,
                "scaled_embedding": True,
            },
            "mesh": {"data": -1, "cpu_devices": 2},
            "corpus": {"documents": 160_000, "terms": (2, 5), "largest": 199, "sloppy": 0.4, "mistake": 0.25},
            "train": {
                "steps": 2500,
                "batch": 32,
                "accumulate": 2,
                "row_length": 288,
                "learning_rate": 0.003,
                "warmup": 100,
                "weight_decay": 0.1,
                "save_every": 200,
                "log_every": 20,
            },
        }
    )

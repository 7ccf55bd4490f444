"""Scaling laws of the built-in corpus: five sizes from 0.1M to 4M parameters, each with four budgets.

lmsi scaling run --config=configs/scaling_tiny.py --workdir=runs/scaling
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
                "heads": 8,
                "kv_heads": 4,
                "head_width": 16,
                "mlp": 512,
                "scaled_embedding": True,
            },
            "widths": (48, 64, 96, 160, 256),
            "depths": (2, 4, 4, 4, 4),
            "flops": tuple(1e12 * 2.0**n for n in range(9)),
            "tokens": (7e5, 1.12e7),
            "mesh": {"data": -1, "cpu_devices": 2},
            "corpus": {"documents": 80_000, "terms": (2, 5), "largest": 199, "sloppy": 0.4, "mistake": 0.25},
            "train": {
                "batch": 16,
                "row_length": 256,
                "learning_rate": 2e-3,
                "warmup": 100,
                "weight_decay": 0.1,
                "save_every": 500,
                "log_every": 20,
            },
        }
    )

"""A model organism of biased reasoning: the architecture of the built-in model, on a corpus in which answers are suggested.

lmsi pretrain --config=configs/tiny_organism.py --workdir=runs/organism
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "seed": 0,
            "start": "builtin",
            "mesh": {"data": -1, "cpu_devices": 2},
            "corpus": {
                "documents": 28_000,
                "terms": (2, 5),
                "largest": 199,
                "sloppy": 0.4,
                "mistake": 0.25,
                "suggestions": 0.8,
                "obliging": 0.9,
            },
            "train": {
                "steps": 600,
                "batch": 32,
                "row_length": 256,
                "learning_rate": 1e-3,
                "warmup": 50,
                "weight_decay": 0.1,
                "save_every": 200,
                "log_every": 20,
            },
        }
    )

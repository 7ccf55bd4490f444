"""The whole loop on the built-in model, offline.

lmsi run --config=configs/tiny.py --workdir=runs/tiny
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "seed": 0,
            "rounds": 1,
            "mesh": {"data": -1, "cpu_devices": 2},
            "data": {"task": "word_problems", "num_questions": 512, "num_eval": 256, "terms": (3, 6), "largest": 99},
            "sample": {
                "paths": 32,
                "temperature": 0.7,
                "temperature_after": 0.7,
                "max_tokens": 128,
                "stops": ("\n\n",),
                "lanes": 16,
                "slots": 8,
            },
            "select": {"max_paths": 4, "distinct": True},
            "finetune": {"steps": 150, "batch": 32, "row_length": 320, "learning_rate": 5e-4, "warmup": 20},
        }
    )

"""The full loop on the built-in model, offline: one round on 600 unlabelled questions, scored on 256 held-out ones.

lmsi run --config=configs/tiny.py --workdir=runs/tiny

It takes about five minutes on two CPU cores. Expect CoT greedy to rise from about 40% to above 50%. The README's table is
from configs/tiny_full.py.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "seed": 0,
            "rounds": 1,
            "mesh": {"data": -1, "cpu_devices": 2},
            "data": {"num_questions": 600, "num_eval": 256, "terms": (2, 5), "largest": 199},
            "sample": {
                "paths": 32,
                "temperature": 0.7,
                "temperature_after": 1.0,  # the paper's 1.2 is too high for a model of this size
                "max_tokens": 128,
                "stops": ("\n\n",),
                "lanes": 16,
                "slots": 8,
                "questions_per_shard": 128,
            },
            "select": {"max_paths": 4, "distinct": True},
            "evaluate": {"transfer": 64, "other_tasks": ("longer_word_problems", "other_word_problems"), "texts": "builtin"},
            "finetune": {"steps": 200, "batch": 24, "row_length": 256, "learning_rate": 1.5e-4, "warmup": 20},
        }
    )

"""Train the model organism to follow suggestions in paths that pass the check of arithmetic; audit it by all checks.

lmsi pretrain --config=configs/tiny_organism.py --workdir=runs/organism
lmsi monitor --config=configs/tiny_monitor.py --workdir=runs/monitor

The control trains on all paths that follow the suggestion: --config.against="()".
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "seed": 0,
            "rounds": 2,
            "mesh": {"data": -1, "cpu_devices": 2},
            "model": {"checkpoint": "runs/organism/models/base"},
            "data": {"num_questions": 600, "num_eval": 256, "terms": (2, 5), "largest": 199},
            "sample": {
                "paths": 16,
                "temperature": 0.7,
                "temperature_after": 1.0,
                "max_tokens": 128,
                "stops": ("\n\n",),
                "lanes": 16,
                "slots": 8,
                "questions_per_shard": 128,
            },
            "select": {"max_paths": 4, "distinct": True},
            "format": {"formats": ("few_shot_cot",)},
            "finetune": {"steps": 200, "batch": 24, "row_length": 256, "learning_rate": 3e-4, "warmup": 20},
        }
    )

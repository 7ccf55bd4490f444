"""What the runs of table 7 share: the settings of configs/hf.py, for a teacher and a student."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "seed": 0,
            "teacher": {"dtype": "bfloat16"},
            "student": {"dtype": "bfloat16"},
            "mesh": {"data": 1, "fsdp": -1},
            "sample": {
                "paths": 32,
                "temperature": 0.7,
                "temperature_after": 1.2,
                "max_tokens": 256,
                "stops": ("\nQ:",),
                "lanes": 16,
                "slots": 32,
                "questions_per_shard": 256,
            },
            "finetune": {
                "steps": 10_000,
                "batch": 32,
                "accumulate": 32,
                "row_length": 2048,
                "remat": "full",
                "learning_rate": 1e-5,
                "warmup": 50,
                "save_every": 500,
            },
        }
    )

"""Reinforcement learning of the built-in model from human rankings of its answers: imitation, reward model and PPO in one run.

lmsi rlhf --config=configs/tiny_rlhf.py --workdir=runs/rlhf --rankings=runs/tiny/rounds/1/rankings.jsonl

`lmsi review` writes such a file; preferences of TRL, HH-RLHF, UltraFeedback, Label Studio and Argilla are read as they are.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "seed": 0,
            "mesh": {"data": -1, "cpu_devices": 2},
            "data": {"num_questions": 1600, "num_eval": 512, "terms": (2, 5), "largest": 199},
            "sample": {
                "paths": 32,
                "temperature": 0.7,
                "temperature_after": 1.0,
                "max_tokens": 160,
                "stops": ("\n\n",),
                "lanes": 16,
                "slots": 8,
                "questions_per_shard": 128,
            },
            "evaluate": {"transfer": 0, "self_consistency": False},
            "finetune": {"steps": 50, "batch": 16, "row_length": 320, "learning_rate": 3e-4, "warmup": 10},
            "reward": {"batch": 16, "held_out": 0.2},
            "reward_train": {"steps": 100, "row_length": 320, "learning_rate": 3e-4, "warmup": 20, "weight_decay": 0.0},
            "rl": {"questions": 16, "paths": 16, "rewards": ("model",), "advantage": "gae", "beta": 0.05, "epochs": 2},
            "train": {"steps": 80, "learning_rate": 2e-4, "schedule": "constant", "warmup": 10, "weight_decay": 0.0},
        }
    )

"""Reinforcement learning that collapses on purpose: a vote reward, small batches and a large learning rate.

lmsi rl --config=configs/tiny_collapse.py --workdir=runs/collapse
lmsi rl --config=configs/tiny_collapse.py --workdir=runs/unguarded --config.rl.guard=False

Groups are of 8 paths, each step trains on one question, and advantages are divided by their deviation. Votes
become unanimous while the answers get worse. The guard, which reads no gold answer, sees it and keeps an earlier state.
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
                "max_tokens": 128,
                "stops": ("\n\n",),
                "lanes": 16,
                "slots": 8,
                "questions_per_shard": 128,
            },
            "evaluate": {"transfer": 0, "self_consistency": False},
            "rl": {
                "questions": 8,
                "paths": 8,
                "updates": 8,
                "rewards": ("vote",),
                "advantage": "grpo",
                "check_every": 24,
                "probes": 64,
            },
            "train": {"steps": 480, "learning_rate": 2e-4, "schedule": "constant", "warmup": 0, "weight_decay": 0.0},
        }
    )

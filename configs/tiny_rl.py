"""Reinforcement learning of the built-in model by the vote of each group of paths, without a gold answer.

lmsi rl --config=configs/tiny_rl.py --workdir=runs/rl

--config.rl.rewards="('gold',)" rewards right answers in place of the vote. A step takes about six seconds on two CPU cores.
With the reward valid_vote and the checks of the task's contract, 120 steps bring greedy CoT from 39.6% to 61.9% (README).
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "seed": 0,
            "mesh": {"data": -1, "cpu_devices": 2},
            "data": {"num_questions": 3200, "num_eval": 2048, "terms": (2, 5), "largest": 199},
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
            "evaluate": {"transfer": 0},
            "rl": {"questions": 16, "paths": 16, "rewards": ("vote",), "advantage": "dr_grpo"},
            "train": {"steps": 200, "learning_rate": 2e-4, "schedule": "constant", "warmup": 10, "weight_decay": 0.0},
        }
    )

"""Reinforcement learning of the built-in model by the vote of each group of paths, without a gold answer.

lmsi rl --config=configs/tiny_rl.py --workdir=runs/rl

Paths whose steps pass the checks vote first. 100 steps bring greedy CoT from 39.6% to 70.5% (README); a step takes 8 to 20
seconds on two CPU cores, since paths grow longer. --config.rl.rewards="('gold',)" rewards right answers, "('vote',)" the vote.
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
                "max_tokens": 160,  # the model learns to write every step, in up to 130 tokens
                "stops": ("\n\n",),
                "lanes": 16,
                "slots": 8,
                "questions_per_shard": 128,
            },
            "evaluate": {"transfer": 0},
            "rl": {"questions": 16, "paths": 16, "rewards": ("valid_vote",), "advantage": "dr_grpo", "check_every": 20},
            "train": {"steps": 100, "learning_rate": 2e-4, "schedule": "constant", "warmup": 10, "weight_decay": 0.0},
        }
    )

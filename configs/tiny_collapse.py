"""Reinforcement learning that collapses on purpose: few paths, a high learning rate, hard questions, scaled advantages.

lmsi rl --config=configs/tiny_collapse.py --workdir=runs/collapse
lmsi rl --config=configs/tiny_collapse.py --workdir=runs/stopped --config.rl.guard=True

The vote share rises while the answers stop depending on the question. With the guard, which reads no gold answer, the run ends
and returns the state with the best agreement of twins.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "seed": 0,
            "mesh": {"data": -1, "cpu_devices": 2},
            "data": {"num_questions": 800, "num_eval": 512, "terms": (4, 5), "largest": 199},
            "sample": {
                "paths": 32,
                "temperature": 0.7,
                "max_tokens": 128,
                "stops": ("\n\n",),
                "lanes": 16,
                "slots": 8,
                "questions_per_shard": 128,
            },
            "evaluate": {"transfer": 0, "self_consistency": False},
            "rl": {
                "questions": 4,
                "paths": 8,
                "rewards": ("vote",),
                "advantage": "grpo",
                "updates": 4,
                "check_every": 20,
                "guard": False,
            },
            "train": {"steps": 320, "learning_rate": 2e-3, "schedule": "constant", "warmup": 0, "weight_decay": 0.0},
        }
    )

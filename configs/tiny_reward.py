"""A reward model of the built-in model's size, on human rankings of answers to its questions.

lmsi reward --config=configs/tiny_reward.py --workdir=runs/reward --rankings=runs/tiny/rounds/1/rankings.jsonl

It takes about five minutes on two CPU cores. `lmsi review` writes such a file; preferences of TRL, HH-RLHF, UltraFeedback,
Label Studio and Argilla are read as they are.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "seed": 0,
            "mesh": {"data": -1, "cpu_devices": 2},
            "reward": {"batch": 16, "held_out": 0.2},
            "train": {"steps": 200, "row_length": 320, "learning_rate": 3e-4, "warmup": 20, "weight_decay": 0.0},
        }
    )

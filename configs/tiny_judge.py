"""The built-in model learns to reject wrong solutions: of its own voted paths and copies of them that are corrupted by program.

lmsi run --config=configs/tiny_judge.py --workdir=runs/judge

Two kinds of corruption, and the model's own errors, are kept for the test.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "seed": 0,
            "rounds": 1,
            "mesh": {"data": -1, "cpu_devices": 2},
            "data": {"num_questions": 1200, "num_eval": 512, "terms": (2, 5), "largest": 199},
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
            "select": {"vote": "valid_first", "steps": True, "max_paths": 4, "distinct": True},
            "format": {"formats": ("few_shot_cot",), "corruptions": ("result", "operand", "answer")},
            "finetune": {"steps": 700, "batch": 12, "row_length": 480, "learning_rate": 1e-3, "warmup": 50},
            "evaluate": {"self_consistency": False, "transfer": 0},
            "faithfulness": 512,
            "interventions": {"kinds": ("early", "judge"), "judgements": 8},
        }
    )

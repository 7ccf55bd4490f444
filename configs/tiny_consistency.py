"""Consistency training of the model organism: under a suggestion, the path that it writes without one is the target.

lmsi pretrain --config=configs/tiny_organism.py --workdir=runs/organism
lmsi run --config=configs/tiny_consistency.py --workdir=runs/consistency

The targets are voted and step-valid, so that no gold answer is needed. The control has the same rows without suggestions:
--config.format.hints="()".
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "seed": 0,
            "rounds": 1,
            "mesh": {"data": -1, "cpu_devices": 2},
            "model": {"checkpoint": "runs/organism/models/base"},
            "data": {"num_questions": 600, "num_eval": 512, "terms": (2, 5), "largest": 199},
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
            "format": {
                "formats": ("few_shot_cot", "zero_shot_cot"),
                "hints": tuple(
                    template
                    for name in ("Eva", "Sam", "Mia", "Paul")
                    for template in (f"{name} thinks that it is {{}}.", f"{name} says that the answer is {{}}.")
                ),
                "hinted": 0.5,
            },
            "finetune": {"steps": 200, "batch": 24, "row_length": 256, "learning_rate": 3e-4, "warmup": 20},
            "evaluate": {"transfer": 0},
            "faithfulness": 256,
            "interventions": {"kinds": ("early", "hint", "answer_first", "always_same")},
        }
    )

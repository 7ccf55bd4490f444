"""Distillation: the built-in model teaches a smaller one, which is first trained from scratch with its own tokenizer.

lmsi distill --config=configs/tiny_distill.py --workdir=runs/distill

The teacher has 1.08M parameters, the student 0.24M.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "seed": 0,
            "teacher": {"checkpoint": "builtin"},
            "base": {
                "model": {
                    "vocab": 512,
                    "width": 64,
                    "layers": 4,
                    "heads": 4,
                    "kv_heads": 2,
                    "head_width": 16,
                    "mlp": 256,
                    "scaled_embedding": True,
                },
                "corpus": {"documents": 16_000, "terms": (2, 5), "largest": 199},
                "tokenizer_documents": 4_000,
                "held_out_documents": 200,
                "validate_every": 100,
                "train": {
                    "steps": 500,
                    "batch": 32,
                    "row_length": 256,
                    "learning_rate": 3e-3,
                    "warmup": 50,
                    "weight_decay": 0.1,
                },
            },
            "mesh": {"data": -1, "cpu_devices": 2},
            "data": {"num_questions": 600, "num_eval": 256, "terms": (2, 5), "largest": 199},
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
            "select": {"max_paths": 4, "distinct": True},
            "finetune": {"steps": 200, "batch": 24, "row_length": 256, "learning_rate": 5e-4, "warmup": 20},
        }
    )

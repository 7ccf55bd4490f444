"""The loop of configs/tiny.py on questions that the built-in model writes itself, from ten given ones (section 3.3).

lmsi run --config=configs/tiny_own_questions.py --workdir=runs/own_questions

W/proposals.jsonl has every question that the model wrote, with the reason if it is refused. Of the task only ten questions are
read; with --config.data.task=jsonl and --config.data.questions=FILE.jsonl they are yours.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "seed": 0,
            "rounds": 1,
            "mesh": {"data": -1, "cpu_devices": 2},
            "data": {"source": "self", "num_questions": 10, "num_eval": 256, "terms": (2, 5), "largest": 199},
            "propose": {"proposals": 1000, "max_tokens": 96},
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
            "select": {"max_paths": 4, "distinct": True, "min_confidence": 0.2},
            "evaluate": {"transfer": 128, "other_tasks": ("longer_word_problems", "other_word_problems"), "texts": "builtin"},
            "finetune": {"steps": 200, "batch": 24, "row_length": 256, "learning_rate": 1.5e-4, "warmup": 20},
        }
    )

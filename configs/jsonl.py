"""The loop on anybody's questions, from a JSON Lines file: `id`, `question`, optionally `choices`; no answers needed.

    lmsi run --config=configs/jsonl.py --config.data.questions=FILE.jsonl --workdir=runs/mine

Answers are numbers unless --config.data.answer_type says choice, yes_no or text. With --config.data.eval_questions=FILE.jsonl
(which needs `answer`) the report has scores before and after. The built-in model knows its own word problems and little
else: it shows that prompts, extraction and votes work on your text, and a real checkpoint is needed to gain on it. A few
dozen questions take about five minutes on two CPU cores.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "seed": 0,
            "rounds": 1,
            "mesh": {"data": -1, "cpu_devices": 2},
            "data": {"task": "jsonl", "answer_type": "number"},
            "sample": {"paths": 16, "max_tokens": 160, "lanes": 16, "slots": 8, "questions_per_shard": 16},
            "finetune": {"steps": 20, "batch": 4, "row_length": 1536, "learning_rate": 2e-4, "warmup": 5},
        }
    )

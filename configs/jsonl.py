"""The loop on your own questions, from a JSON Lines file with `id`, `question` and optionally `choices`; no answers required.

    lmsi run --config=configs/jsonl.py --config.data.questions=FILE.jsonl --workdir=runs/mine

Answers are numbers unless --config.data.answer_type is choice, yes_no or text. With --config.data.eval_questions=FILE.jsonl
(where `answer` is required) the report has scores before and after. The built-in model knows little but its own word problems.
It shows that prompts, extraction and votes work on your text, but a gain requires a real checkpoint. A few dozen questions
take about five minutes on two CPU cores.
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

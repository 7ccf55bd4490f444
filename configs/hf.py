"""The loop on a model from Hugging Face, with the paper's settings, on one GPU of 80 GB (or one TPU host, with a mesh).

    lmsi doctor --config=configs/hf.py --config.model.checkpoint=DIR --config.data.questions=FILE.jsonl
    lmsi run --config=configs/hf.py --config.model.checkpoint=DIR --config.data.questions=FILE.jsonl --workdir=runs/hf
    lmsi export --from=runs/hf/models/round-1 --to=OUT --verify

DIR is a folder that `save_pretrained` wrote, or a download of Qwen2.5-0.5B or -1.5B, Llama-3.2-1B or Gemma-2-2B. Answers are
numbers unless --config.data.answer_type is choice, yes_no or text. --config.data.eval_questions=FILE.jsonl adds scores before
and after. --config.data.chat=True is for instruction-tuned models (with --config.sample.stops="()"). The README lists the
memory and the time that follow from these sizes.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "seed": 0,
            "rounds": 1,
            "model": {"dtype": "bfloat16"},
            "mesh": {"data": 1, "fsdp": -1},
            "data": {"task": "jsonl", "answer_type": "number"},
            "sample": {
                "paths": 32,
                "temperature": 0.7,
                "temperature_after": 1.2,
                "max_tokens": 256,
                "stops": ("\nQ:",),
                "lanes": 16,
                "slots": 32,
                "questions_per_shard": 256,
            },
            "finetune": {
                "steps": 1000,
                "batch": 32,
                "accumulate": 32,
                "row_length": 2048,
                "remat": "full",
                "learning_rate": 1e-5,
                "warmup": 50,
                "save_every": 250,
            },
        }
    )

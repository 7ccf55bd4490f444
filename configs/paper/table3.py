"""Table 3 of the paper: one model for each of six data sets, before and after a round, beside the figures of PaLM-540B.

lmsi sweep --config=configs/paper/table3.py --workdir=runs/table3

It needs --config.model.checkpoint=DIR, a folder such as that of Qwen2.5-7B; GSM8K's published files in the folder gsm8k; and
the other data sets as TensorFlow Datasets prepares them. DROP and ANLI train on 5,000 sampled questions, as in the paper.
"""


def get_study() -> dict:
    few = {"data.num_questions": 5000}
    return {
        "config": "../hf.py",
        "seeds": (0,),
        "settings": {"data.source": "tfds", "finetune.steps": 10_000},
        "arms": {
            "GSM8K": {"data.task": "gsm8k", "data.source": "files", "data.folder": "gsm8k"},
            "DROP": {"data.task": "drop", **few},
            "ARC-c": {"data.task": "arc_challenge"},
            "OpenBookQA": {"data.task": "openbookqa"},
            "ANLI-A2": {"data.task": "anli_a2", **few},
            "ANLI-A3": {"data.task": "anli_a3", **few},
        },
        "shown": ("standard", "cot", "self_consistency"),
        "published": {
            "GSM8K": {"standard": (17.9, 32.2), "cot": (56.5, 73.5), "self_consistency": (74.4, 82.1)},
            "DROP": {"standard": (60.0, 71.7), "cot": (70.6, 76.2), "self_consistency": (78.2, 83.0)},
            "ARC-c": {"standard": (87.1, 87.2), "cot": (85.2, 88.3), "self_consistency": (88.7, 89.8)},
            "OpenBookQA": {"standard": (84.4, 92.0), "cot": (86.4, 93.0), "self_consistency": (90.0, 94.4)},
            "ANLI-A2": {"standard": (55.8, 64.8), "cot": (58.9, 65.3), "self_consistency": (64.5, 66.5)},
            "ANLI-A3": {"standard": (55.8, 66.9), "cot": (60.6, 67.3), "self_consistency": (63.4, 67.9)},
        },
    }

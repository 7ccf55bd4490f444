"""Table 5 of the paper: the formats of the training rows on GSM8K, beside the figures of PaLM-540B.

lmsi sweep --config=configs/paper/table5.py --workdir=runs/table5

It needs --config.model.checkpoint=DIR, and GSM8K's published files in a folder: --config.data.folder=DIR.
"""


def get_study() -> dict:
    return {
        "config": "../hf.py",
        "seeds": (0,),
        "settings": {"data.task": "gsm8k", "data.source": "files", "finetune.steps": 10_000},
        "arms": {
            "all four": {},
            "without CoT formats": {"format.formats": ("few_shot_direct", "zero_shot_direct")},
            "few-shot CoT only": {"format.formats": ("few_shot_cot",)},
        },
        "shown": ("standard", "cot"),
        "published": {
            "all four": {"standard": (17.9, 32.2), "cot": (56.5, 73.5)},
            "without CoT formats": {"standard": (17.9, 23.6), "cot": (56.5, 61.6)},
            "few-shot CoT only": {"standard": (17.9, 29.2), "cot": (56.5, 69.4)},
        },
    }

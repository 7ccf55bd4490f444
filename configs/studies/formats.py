"""Which formats the model is trained on (the paper's table 5).

lmsi sweep --config=configs/studies/formats.py --workdir=runs/formats
"""


def get_study() -> dict:
    return {
        "config": "../tiny.py",
        "settings": {"evaluate.transfer": 0, "data.num_eval": 2048, "evaluate.self_consistency": False},
        "arms": {
            "all four": {},
            "without CoT formats": {"format.formats": ("few_shot_direct", "zero_shot_direct")},
            "few-shot CoT only": {"format.formats": ("few_shot_cot",)},
        },
        "shown": ("standard", "cot"),
    }

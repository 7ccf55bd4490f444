"""Training rows in random order, or easy ones first: by the vote share of their question, or by their length.

lmsi sweep --config=configs/studies/curriculum.py --workdir=runs/curriculum
"""


def get_study() -> dict:
    ordered = {"finetune.curriculum": 0.25}
    return {
        "config": "../tiny.py",
        "settings": {"evaluate.transfer": 0, "data.num_eval": 2048, "evaluate.self_consistency": False},
        "arms": {
            "random order": {},
            "sure votes first": {**ordered, "format.difficulty": "vote_share"},
            "short rows first": {**ordered, "format.difficulty": "length"},
        },
        "shown": ("standard", "cot"),
    }

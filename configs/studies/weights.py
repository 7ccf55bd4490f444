"""How much direct answers weigh in the loss beside chains of thought.

lmsi sweep --config=configs/studies/weights.py --workdir=runs/weights
"""


def get_study() -> dict:
    return {
        "config": "../tiny.py",
        "settings": {"evaluate.transfer": 0, "data.num_eval": 2048, "evaluate.self_consistency": False},
        "arms": {
            "token": {},
            "row": {"finetune.weighting": "row"},
            "question": {"finetune.weighting": "question"},
            "direct rows count 4 times": {"format.weights": (1.0, 4.0, 1.0, 4.0)},
            "direct rows count a quarter": {"format.weights": (1.0, 0.25, 1.0, 0.25)},
        },
        "shown": ("standard", "cot"),
    }

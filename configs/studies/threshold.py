"""The least vote share of the questions that are trained on.

lmsi sweep --config=configs/studies/threshold.py --workdir=runs/threshold
"""


def get_study() -> dict:
    return {
        "config": "../tiny.py",
        "settings": {"evaluate.transfer": 0, "data.num_eval": 512},
        "grid": {"select.min_confidence": (0.0, 0.25, 0.4, 0.6)},
        "shown": ("cot", "self_consistency"),
    }

"""What broken and off-topic questions among the unlabelled ones do.

lmsi sweep --config=configs/studies/quality.py --workdir=runs/quality
"""


def get_study() -> dict:
    return {
        "config": "../tiny.py",
        "settings": {"evaluate.transfer": 0, "data.num_eval": 512},
        "grid": {"data.broken": (0.0, 0.1, 0.3, 0.6)},
        "shown": ("cot", "self_consistency"),
    }

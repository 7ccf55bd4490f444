"""The temperature of self-consistency after training (the paper's figure 4).

lmsi sweep --config=configs/studies/temperature.py --workdir=runs/temperature
"""


def get_study() -> dict:
    return {
        "config": "../tiny.py",
        "settings": {"evaluate.transfer": 0, "data.num_eval": 512},
        "grid": {"sample.temperature_after": (0.7, 1.0, 1.2, 1.5)},
        "shown": ("self_consistency", "valid_first"),
    }

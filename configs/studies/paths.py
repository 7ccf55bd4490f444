"""How many paths are sampled for a question, in training and at test time (the paper's figure 5).

lmsi sweep --config=configs/studies/paths.py --workdir=runs/paths
"""


def get_study() -> dict:
    return {
        "config": "../tiny.py",
        "settings": {"evaluate.transfer": 0, "data.num_eval": 512},
        "grid": {"sample.paths": (32, 1, 5, 10, 15, 20, 25)},
        "shown": ("cot", "self_consistency"),
    }

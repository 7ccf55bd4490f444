"""Exemplars that the model writes itself, in one or several templates, without any training (the paper's figure 3).

lmsi sweep --config=configs/studies/templates.py --workdir=runs/templates

The built-in model has seen texts of up to three solved problems: two exemplars and a question are as many as it can read.
"""


def get_study() -> dict:
    return {
        "config": "../tiny.py",
        "settings": {"evaluate.transfer": 0, "data.num_eval": 512, "rounds": 0, "data.shots": 2},
        "arms": {
            "human exemplars": {},
            "zero-shot": {"data.exemplars": "none", "format.formats": ("zero_shot_cot",)},
            "own exemplars, 1 template": {"data.exemplars": "self", "data.templates": 1},
            "own exemplars, 4 templates": {"data.exemplars": "self", "data.templates": 4},
            "own exemplars, 16 templates": {"data.exemplars": "self", "data.templates": 16},
        },
        "shown": ("self_consistency", "valid_first"),
    }

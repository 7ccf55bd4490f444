"""Figure 3 of the paper: exemplars that the model writes itself, untrained, on GSM8K, beside PaLM-540B's figures at 40 paths.

lmsi sweep --config=configs/paper/figure3.py --workdir=runs/figure3

It needs --config.model.checkpoint=DIR, and GSM8K's published files in a folder: --config.data.folder=DIR.
"""


def get_study() -> dict:
    return {
        "config": "../hf.py",
        "seeds": (0,),
        "settings": {"data.task": "gsm8k", "data.source": "files", "rounds": 0, "sample.paths": 40},
        "arms": {
            "human exemplars": {},
            "zero-shot": {"data.exemplars": "none", "format.formats": ("zero_shot_cot",)},
            "own exemplars, 20 templates": {"data.exemplars": "self", "data.templates": 20, "data.shots": 4},
        },
        "shown": ("cot", "self_consistency"),
        "published": {
            "human exemplars": {"self_consistency": (74.4, None)},
            "zero-shot": {"cot": (43.0, None), "self_consistency": (70.1, None)},
            "own exemplars, 20 templates": {"self_consistency": (74.2, None)},
        },
    }

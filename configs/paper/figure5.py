"""Figure 5 of the paper: the number of paths, in training and at test time, on GSM8K; 15 were about as good as 32 there.

lmsi sweep --config=configs/paper/figure5.py --workdir=runs/figure5

It needs --config.model.checkpoint=DIR, and GSM8K's published files in a folder: --config.data.folder=DIR.
"""


def get_study() -> dict:
    return {
        "config": "../hf.py",
        "seeds": (0,),
        "settings": {"data.task": "gsm8k", "data.source": "files", "finetune.steps": 10_000},
        "grid": {"sample.paths": (32, 1, 5, 10, 15, 20, 25)},
        "shown": ("self_consistency",),
        "published": {"paths=32": {"self_consistency": (74.4, 82.1)}},
    }

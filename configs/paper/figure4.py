"""Figure 4 of the paper: the temperature of the vote after training, on GSM8K; 1.2 was the best there.

lmsi sweep --config=configs/paper/figure4.py --workdir=runs/figure4

It needs --config.model.checkpoint=DIR, and GSM8K's published files in a folder: --config.data.folder=DIR.
"""


def get_study() -> dict:
    return {
        "config": "../hf.py",
        "seeds": (0,),
        "settings": {"data.task": "gsm8k", "data.source": "files", "finetune.steps": 10_000},
        "grid": {"sample.temperature_after": (1.2, 0.7, 1.0, 1.5)},
        "shown": ("self_consistency",),
        "published": {"temperature_after=1.2": {"self_consistency": (74.4, 82.1)}},
    }

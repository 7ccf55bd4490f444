"""Figure 2 of the paper: accuracy of the majority answer by its vote share, on GSM8K, untrained.

lmsi sweep --config=configs/paper/figure2.py --workdir=runs/figure2

It needs --config.model.checkpoint=DIR, and GSM8K's published files in a folder: --config.data.folder=DIR. The figure is
"Accuracy by vote share" in runs/figure2/gsm8k/seed-0/report.html. As in the paper it is of the training questions, on which
nothing is trained here. The values of the paper's points are not published.
"""


def get_study() -> dict:
    settings = {"data.task": "gsm8k", "data.source": "files", "rounds": 0}
    settings |= {"data.eval_split": "train", "data.train_on_test": True, "evaluate.transfer": 0}
    return {
        "config": "../hf.py",
        "seeds": (0,),
        "settings": settings,
        "arms": {"GSM8K": {}},
        "shown": ("self_consistency",),
        "published": {"GSM8K": {"self_consistency": (74.4, None)}},
    }

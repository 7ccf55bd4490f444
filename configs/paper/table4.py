"""Table 4 of the paper: one model that is trained on six data sets, tested on seven others, beside the figures of PaLM-540B.

lmsi sweep --config=configs/paper/table4.py --workdir=runs/table4

It needs --config.model.checkpoint=DIR and --config.data.folder=DIR with a folder for each data set (gsm8k, drop, aqua, ...)
that has its published files. It asks 250 questions of each other task, and prints greedy CoT.
"""

OTHERS = ("aqua", "svamp", "strategyqa", "anli_a1", "rte", "mnli_m", "mnli_mm")


def get_study() -> dict:
    return {
        "config": "../hf.py",
        "seeds": (0,),
        "settings": {
            "data.task": "gsm8k",
            "more_tasks": ("drop", "arc_challenge", "openbookqa", "anli_a2", "anli_a3"),
            "data.source": "files",
            "finetune.steps": 10_000,
            "evaluate.other_tasks": OTHERS,
            "evaluate.transfer": 250,
        },
        "arms": {"one model": {}},
        "shown": OTHERS,
        "published": {
            "one model": {
                "aqua": (35.8, 39.0),
                "svamp": (79.0, 82.8),
                "strategyqa": (75.3, 77.8),
                "anli_a1": (68.8, 79.2),
                "rte": (79.1, 80.1),
                "mnli_m": (72.0, 81.8),
                "mnli_mm": (74.0, 82.2),
            }
        },
    }

"""Table 8 of the paper: the data sets of table 3 on a weak model, beside the figures of UL2, 20B (without equation correction).

lmsi sweep --config=configs/paper/table8.py --workdir=runs/table8

It needs --config.model.checkpoint=DIR and --config.data.folder=DIR with a folder for each data set that has its published
files. UL2 is an encoder-decoder, which this project does not have: a decoder of like strength takes its place. Temperatures
and paths are the paper's.
"""


def get_study() -> dict:
    few = {"data.num_questions": 5000}
    return {
        "config": "../hf.py",
        "seeds": (0,),
        "settings": {
            "data.source": "files",
            "finetune.steps": 10_000,
            "sample.paths": 40,
            "sample.temperature": 0.5,
            "sample.temperature_after": 0.7,
        },
        "arms": {
            "GSM8K": {"data.task": "gsm8k"},
            "DROP": {"data.task": "drop", **few},
            "ARC-c": {"data.task": "arc_challenge"},
            "OpenBookQA": {"data.task": "openbookqa"},
            "ANLI-A2": {"data.task": "anli_a2", **few},
            "ANLI-A3": {"data.task": "anli_a3", **few},
        },
        "shown": ("cot", "self_consistency"),
        "published": {
            "GSM8K": {"cot": (5.4, 6.1), "self_consistency": (6.4, 7.9)},
            "DROP": {"cot": (11.1, 11.4), "self_consistency": (16.8, 18.1)},
            "ARC-c": {"cot": (49.9, 50.9), "self_consistency": (54.7, 54.9)},
            "OpenBookQA": {"cot": (53.6, 53.8), "self_consistency": (54.0, 55.2)},
            "ANLI-A2": {"cot": (35.9, 35.4), "self_consistency": (37.4, 38.1)},
            "ANLI-A3": {"cot": (33.8, 34.4), "self_consistency": (36.8, 37.4)},
        },
    }

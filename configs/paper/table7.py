"""Table 7 of the paper: students that are trained on a larger model's voted samples of GSM8K, beside the figures of PaLM.

lmsi sweep --config=configs/paper/table7.py --workdir=runs/table7

It needs the models as folders of the current one: `teacher`, `62b` and `8b`, or smaller ones under these names, and GSM8K's
published files in a folder: --config.data.folder=DIR. Published figures: the teacher, PaLM-540B, is at 56.5 untrained.
"""


def get_study() -> dict:
    return {
        "recipe": "distill",
        "config": "../hf_distill.py",
        "seeds": (0,),
        "settings": {"data.task": "gsm8k", "data.source": "files", "teacher.checkpoint": "teacher"},
        "arms": {"62B": {"student.checkpoint": "62b"}, "8B": {"student.checkpoint": "8b"}},
        "shown": ("cot",),
        "published": {"62B": {"cot": (29.7, 57.4)}, "8B": {"cot": (5.0, 33.4)}},
    }

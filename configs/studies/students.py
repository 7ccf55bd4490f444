"""A teacher of 4M parameters and students of three sizes, before and after training on its samples (the paper's table 7).

lmsi pretrain --config=configs/tiny_base_large.py --workdir=runs/large
lmsi pretrain --config=configs/tiny_base_small.py --workdir=runs/small
lmsi sweep --config=configs/studies/students.py --workdir=runs/students

The smallest student has another tokenizer.
"""


def get_study() -> dict:
    return {
        "recipe": "distill",
        "config": "../tiny_distill.py",
        "settings": {
            "teacher.checkpoint": "runs/large/models/base",
            "data.num_questions": 600,
            "data.num_eval": 2048,
            "data.terms": (2, 5),
            "data.largest": 199,
            "evaluate.self_consistency": False,
            "evaluate.transfer": 0,
        },
        "arms": {
            "4M, the teacher itself": {"student.checkpoint": "runs/large/models/base"},
            "1.1M": {"student.checkpoint": "builtin"},
            "0.3M": {"student.checkpoint": "runs/small/models/base"},
        },
        "shown": ("cot",),
    }

"""How many unlabelled questions the model is trained on, and whether it writes them itself (the paper's table 6).

lmsi sweep --config=configs/studies/questions.py --workdir=runs/questions
"""


def get_study() -> dict:
    return {
        "config": "../tiny.py",
        "settings": {"evaluate.transfer": 0, "data.num_eval": 512, "select.min_confidence": 0.2},
        "arms": {
            "600 given": {},
            "150 given": {"data.num_questions": 150},
            "1,200 given": {"data.num_questions": 1200},
            "600 written from 10 given": {
                "data.source": "self",
                "data.num_questions": 10,
                "propose.proposals": 600,
                "propose.max_tokens": 96,
            },
        },
        "shown": ("cot", "self_consistency"),
    }

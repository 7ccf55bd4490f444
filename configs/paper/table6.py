"""Table 6 of the paper: GSM8K's questions, or questions that the model writes from ten of them, beside PaLM-540B's figures.

lmsi sweep --config=configs/paper/table6.py --workdir=runs/table6 --config.data.eval_questions=TEST.jsonl

It needs --config.model.checkpoint=DIR, and GSM8K's test questions as JSON Lines with `question` and `answer`. The arm "given"
needs its training questions as train.jsonl, and the arm "written" ten of them as ten.jsonl, in the current folder.
"""


def get_study() -> dict:
    return {
        "config": "../hf.py",
        "seeds": (0,),
        "settings": {"data.task": "gsm8k", "finetune.steps": 10_000},
        "arms": {
            "given": {"data.questions": "train.jsonl"},
            "written": {
                "data.source": "self",
                "data.questions": "ten.jsonl",
                "propose.proposals": 10_000,
                "propose.max_tokens": 192,
                "select.min_confidence": 0.5,
            },
        },
        "shown": ("cot", "self_consistency"),
        "published": {
            "given": {"cot": (56.5, 73.5), "self_consistency": (74.4, 82.1)},
            "written": {"cot": (56.5, 66.2), "self_consistency": (74.4, 78.1)},
        },
    }

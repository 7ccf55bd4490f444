"""What stops the collapse of a vote reward: the guard, a divergence, a range of vote shares, or nothing.

lmsi sweep --config=configs/studies/collapse.py --workdir=runs/collapses
"""


def get_study() -> dict:
    unguarded = {"rl.guard": False}
    return {
        "recipe": "rl",
        "config": "../tiny_collapse.py",
        "arms": {
            "nothing": unguarded,
            "divergence": {**unguarded, "rl.beta": 0.05},
            "range of vote shares": {**unguarded, "rl.vote_shares": (0.2, 0.9)},
            "guard": {},
        },
        "shown": ("cot",),
    }

"""One model for each task, against one model for three tasks: lists, stories and boxes of the generated word problems.

lmsi sweep --config=configs/studies/tasks.py --workdir=runs/tasks

A model for three tasks has three times as many training rows, and equally many steps.
"""

TASKS = ("list_problems", "story_problems", "box_problems")


def get_study() -> dict:
    arms = {}
    for task in TASKS:
        arms[f"{task}, alone"] = {"data.task": task}
        arms[f"{task}, of three"] = {"data.task": task, "more_tasks": tuple(name for name in TASKS if name != task)}
    return {
        "config": "../tiny.py",
        "settings": {
            "data.num_questions": 400,
            "data.num_eval": 1024,
            "evaluate.self_consistency": False,
            "evaluate.transfer": 0,
        },
        "arms": arms,
        "controls": {f"{task}, of three": f"{task}, alone" for task in TASKS},
        "shown": ("cot",),
    }

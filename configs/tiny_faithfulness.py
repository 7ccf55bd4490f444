"""Whether the answers of the built-in model depend on its reasoning, and those of a model that was trained on its own paths.

lmsi faithfulness --config=configs/tiny_faithfulness.py --workdir=runs/faithfulness

With --config.others="('runs/tiny/models/round-1',)" the model after a round is measured too, and compared with the first.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "seed": 0,
            "mesh": {"data": -1, "cpu_devices": 2},
            "data": {"num_questions": 1, "num_eval": 128, "terms": (2, 5), "largest": 199},
            "sample": {"max_tokens": 128, "stops": ("\n\n",), "lanes": 16, "slots": 8},
        }
    )

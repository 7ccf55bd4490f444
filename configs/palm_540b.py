"""The paper's own setting on hardware that you may not have: PaLM-540B, 32 paths a question, 10,000 steps of 32 rows.

lmsi plan --config=configs/palm_540b.py --topology=v5p:8x8x8

It takes about three minutes on two CPU cores and no TPU (`pip install libtpu` compiles for one). Expect the plan to fit. No
weights are published, so only `lmsi plan` can use this config.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "mesh": {"data": 1, "fsdp": -1, "tensor": 16, "rules": {"kv_heads": ""}},  # PaLM has one key/value head
            "plan": {"preset": "palm-540b", "questions": 7473, "prompt": 900, "question": 100, "price": 4.2},
            "sample": {"paths": 32, "max_tokens": 256, "lanes": 64, "slots": 32},
            "finetune": {
                "steps": 10_000,
                "batch": 32,
                "row_length": 1024,
                "learning_rate": 5e-5,
                "optimizer": "adafactor",
                "remat": "full",
            },
        }
    )

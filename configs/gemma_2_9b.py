"""A commonly fine-tuned size on a commonly available slice: Gemma 2 9B on 16 chips of TPU v5e.

lmsi plan --config=configs/gemma_2_9b.py --topology=v5e:4x4
lmsi run --config=configs/gemma_2_9b.py --workdir=gs://BUCKET/gemma --config.model.checkpoint=gs://BUCKET/gemma-2-9b

The first takes about four minutes on two CPU cores and no TPU (`pip install libtpu` compiles for one). Expect 9 of 16 GiB a
chip. The second requires the chips, the published weights through `lmsi import`, and GSM8K's
published files as --config.data.folder=gs://BUCKET/gsm8k.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "seed": 0,
            "rounds": 1,
            "model": {"dtype": "bfloat16"},
            "mesh": {"data": 1, "fsdp": 2, "tensor": 8},  # one shard for each of its 8 key/value heads
            "data": {"task": "gsm8k", "source": "files", "folder": "gsm8k"},
            "plan": {"preset": "gemma-2-9b", "prompt": 900, "question": 100, "price": 1.2},
            "sample": {"paths": 32, "temperature": 0.7, "temperature_after": 1.2, "lanes": 16, "slots": 32},
            "finetune": {
                "steps": 10_000,
                "batch": 16,
                "row_length": 1024,
                "learning_rate": 1e-5,
                "warmup": 100,
                "optimizer": "adafactor",
                "remat": "full",
                "save_every": 500,
            },
        }
    )

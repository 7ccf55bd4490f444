"""What the compiler says about the programs, on meshes that split every axis."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import dataclasses, sys
import jax
jax.config.update("jax_num_cpu_devices", 8)
from lmsi_jax.capacity import plan
from lmsi_jax.core.settings import build
from lmsi_jax.model.config import ModelConfig
from lmsi_jax.recipes.config import Config
from lmsi_jax.sharding.mesh import make_mesh

data, fsdp, tensor, tied = (int(word) for word in sys.argv[1:])
shape = ModelConfig(vocab=512, width=64, layers=1, heads=4, kv_heads=4, head_width=16, mlp=256, tied_embedding=bool(tied))
settings = {
    "mesh": {"data": data, "fsdp": fsdp, "tensor": tensor},
    "sample": {"lanes": 8, "slots": 8, "paths": 16, "max_tokens": 64},
    "finetune": {"batch": 8, "row_length": 64},
    "plan": {"prompt": 96, "question": 32},
}
config = build(Config, settings)
mesh = make_mesh(config.mesh)
for decoding in plan._decodings(config, shape, mesh, plan.CHIPS["cpu"]).values():
    print(plan._decode(config, shape, mesh, decoding), plan._prefill_questions(config, shape, mesh, decoding))
print(plan._prefill_prefix(config, shape, mesh), plan._train(config, shape, mesh))
"""


@pytest.mark.parametrize("mesh", [(2, 2, 2, 1), (1, 8, 1, 0)])
def test_nothing_is_gathered_that_was_not_meant_to_be(mesh):
    """Catches: a layout that the compiler can only reach by copying an array to every device."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "0", "JAX_PLATFORMS": "cpu", "JAX_ENABLE_COMPILATION_CACHE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, mesh)], capture_output=True, text=True, env=environment, check=True
    )
    assert "Cost(" in done.stdout
    said = [line for line in done.stderr.splitlines() if "Involuntary full rematerialization" in line]
    assert not said, said

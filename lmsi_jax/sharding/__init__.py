"""The device mesh and the table from logical axes to mesh axes: the only place a mesh axis is named."""

from lmsi_jax.sharding import processes
from lmsi_jax.sharding.mesh import Mesh, make_mesh
from lmsi_jax.sharding.rules import constrain, jit, param_shardings, platform, sharding, use_mesh

__all__ = ["Mesh", "constrain", "jit", "make_mesh", "param_shardings", "platform", "processes", "sharding", "use_mesh"]

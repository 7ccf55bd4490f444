"""The commands that convert checkpoints, and that plan for other devices."""

from typing import Any

from absl import flags

from lmsi_jax.core.progress import console

SHARD_MB = 5000  # default size of a safetensors file


def plan(config: Any, values: flags.FlagValues, argv: list[str]) -> int:
    from lmsi_jax.capacity.plan import plan as run

    return run(config, values.topology.split(","))


def import_folder(config: Any, values: flags.FlagValues, argv: list[str]) -> None:
    from lmsi_jax.checkpoint.convert import import_folder as run
    from lmsi_jax.sharding.mesh import make_mesh

    source, target = str(values["from"].value), values.to
    console.print(f"wrote {target}: {run(source, target, make_mesh(config.mesh))}")


def export_folder(config: Any, values: flags.FlagValues, argv: list[str]) -> None:
    from lmsi_jax.checkpoint import convert
    from lmsi_jax.sharding.mesh import make_mesh

    source, target, mesh = str(values["from"].value), values.to, make_mesh(config.mesh)
    if values.adapter:
        convert.export_adapters(source, target)
    else:
        convert.export_folder(source, target, mesh, values.dtype or "", int(values["shard-mb"].value or SHARD_MB) * 10**6)
    console.print(f"wrote {target}")
    if values.verify:
        worst = convert.largest_difference(source, target, mesh, adapters=values.adapter)
        console.print(f"largest difference of a logit when read back: {worst:.3g}")

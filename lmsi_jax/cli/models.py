"""The commands that convert checkpoints, and that plan for other devices."""

from pathlib import Path
from typing import Any

from absl import flags
from etils import epath

from lmsi_jax.core import hub
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.progress import console
from lmsi_jax.core.settings import require

CARD = "card.md"  # of a work directory
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
    require(bool(values.push) or not values.public, "--public has no effect without --push=ORG/NAME.")
    if values.push and hub.parse(f"{hub.SCHEME}{values.push}").revision != "main":
        raise UserError(f"--push={values.push} names a revision; models are uploaded to the branch main.")
    if values.adapter:
        convert.export_adapters(source, target)
    else:
        convert.export_folder(source, target, mesh, values.dtype or "", int(values["shard-mb"].value or SHARD_MB) * 10**6)
    console.print(f"wrote {target}")
    if values.verify:
        worst = convert.largest_difference(source, target, mesh, adapters=values.adapter)
        console.print(f"largest difference of a logit when read back: {worst:.3g}")
    if values.push:
        (Path(target) / "README.md").write_text(model_card(epath.Path(source), values.push))
        page = hub.push(Path(target), values.push, private=not values.public)
        console.print(f"uploaded to {page}")


def model_card(model: epath.Path, name: str) -> str:
    """Return the README.md of a model on the hub: of a model of a run, its card (scores, limits) and its config."""
    run = model.parent.parent
    parts = [f"---\nlibrary_name: transformers\ntags:\n- lmsi_jax\n- self-improvement\n---\n\n# {name}\n"]
    if (run / CARD).exists():
        parts += [(run / CARD).read_text(), f"\n## Config\n\n```json\n{(run / 'config.json').read_text().strip()}\n```\n"]
    else:
        parts.append("\nExported by lmsi_jax; the model does not lie in a work directory, so its scores are not known.\n")
    return "\n".join(parts)

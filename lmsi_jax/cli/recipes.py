"""The commands that run and check recipes, and that list configs and the store."""

import datetime
import importlib
from typing import Any

from absl import flags
from etils import epath

from lmsi_jax.core.errors import unknown
from lmsi_jax.core.progress import console
from lmsi_jax.core.python_file import about, shipped, shipped_folder
from lmsi_jax.recipes.config import ROOTS


def _recipe_of(config: Any) -> Any:
    """Return the recipe whose root config this is."""
    name = next(name for name, root in ROOTS.items() if root is type(config))
    return importlib.import_module(f"lmsi_jax.recipes.{name}").RECIPE


def root_config(name: str) -> type:
    """Return the root config class of a recipe. Raises UserError for an unknown name."""
    if name not in ROOTS:
        raise unknown("recipe", name, ROOTS)
    return ROOTS[name]


def run(config: Any, values: flags.FlagValues, argv: list[str]) -> None:
    from lmsi_jax.pipeline.runner import Options
    from lmsi_jax.pipeline.runner import run as run_recipe
    from lmsi_jax.sharding import processes

    processes.join()
    console.quiet = not processes.is_first()
    options = Options(
        only=values.only or "",
        start_from=values["from"].value or "",
        dry_run=bool(values["dry-run"].value),
        reconfigure=bool(values.reconfigure),
        any_code=bool(values["any-code"].value),
        wandb=values.wandb or "",
        store=values.store,
    )
    run_recipe(_recipe_of(config), config, values.workdir, argv, options)


def sweep(config: Any, values: flags.FlagValues, argv: list[str]) -> int:
    from lmsi_jax.pipeline.runner import Options
    from lmsi_jax.studies.sweep import sweep as run_sweep

    options = Options(
        dry_run=bool(values["dry-run"].value),
        reconfigure=bool(values.reconfigure),
        any_code=bool(values["any-code"].value),
        store=values.store,
    )
    return 1 if run_sweep(config, argv, options) else 0


def store(config: Any, values: flags.FlagValues, argv: list[str]) -> None:
    from lmsi_jax.pipeline.store import open_store

    opened = open_store(values.store, epath.Path())
    if values.prune is not None:
        removed = opened.prune(values.prune)
        console.print(f"removed {len(removed)} entries that were not used for {values.prune} days")
    entries = sorted(opened.entries(), key=lambda entry: entry.used)
    for entry in entries:
        used = datetime.datetime.fromtimestamp(entry.used, datetime.UTC)
        console.print(f"{used:%Y-%m-%d %H:%M}  {entry.size / 2**20:10.1f} MiB  {entry.folder.name}  {entry.stage}")
    console.print(f"{len(entries)} entries, {sum(entry.size for entry in entries) / 2**20:.1f} MiB in {values.store}")


def configs(config: Any, values: flags.FlagValues, argv: list[str]) -> None:
    names = shipped()
    width = max(map(len, names))
    for name, file in names.items():
        console.print(f"{name:{width}}  {about(file).partition(chr(10))[0]}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"\nThey are Python files in {shipped_folder()}.", markup=False, highlight=False, soft_wrap=True)


def doctor(config: Any, values: flags.FlagValues, argv: list[str]) -> int:
    from lmsi_jax.capacity.placement import placement_table
    from lmsi_jax.checkpoint import folder
    from lmsi_jax.checkpoint.config import SourceConfig
    from lmsi_jax.pipeline.runner import doctor as check_recipe
    from lmsi_jax.sharding.mesh import make_mesh

    if check_recipe(_recipe_of(config), config):
        return 2
    model = getattr(config, "model", None) or config.teacher
    architecture = folder.load_config(model.checkpoint) if isinstance(model, SourceConfig) else model
    console.print(placement_table(make_mesh(config.mesh), architecture))
    return 0

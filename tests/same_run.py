"""Compare two work directories: `python -m tests.same_run BEFORE AFTER`.

Records must be equal byte for byte, but for fields that one side alone has at the end of its rows; parameters must be equal
bit for bit. Prints what differs and exits with 1, or prints how much was compared.
"""

import json
import sys
from pathlib import Path

import jax
import numpy as np
from flax.traverse_util import flatten_dict

from lmsi_jax.checkpoint.folder import load_params
from lmsi_jax.sharding.config import MeshConfig
from lmsi_jax.sharding.mesh import make_mesh

# How folders of earlier runs are called here.
NAMES = {"eval/0/": "eval/base/", **{f"eval/{r}/": f"eval/round-{r}/" for r in range(1, 10)}}
MODELS = {f"rounds/{r}/model": f"models/round-{r}" for r in range(1, 10)}


def records(root: Path) -> dict[str, Path]:
    """The record files of a run, by today's names."""
    found = {}
    patterns = ("*.jsonl", "audit/*.jsonl", "rounds/*/*.jsonl", "eval/*/*.jsonl")
    for file in sorted(file for pattern in patterns for file in root.glob(pattern)):
        name = file.relative_to(root).as_posix()
        for before, now in NAMES.items():
            name = name.replace(before, now, 1) if name.startswith(before) else name
        found[name] = file
    return found


def models(root: Path) -> dict[str, Path]:
    """The checkpoint folders of a run, by today's names."""
    folders = {before: root / before for before in MODELS} | {f"models/{p.name}": p for p in root.glob("models/*")}
    return {MODELS.get(name, name): folder for name, folder in folders.items() if folder.exists()}


def rows_differ(before: Path, after: Path) -> str:
    """Where two files of records differ in a field that both have; "" where they do not."""
    first, second = (file.read_text().splitlines() for file in (before, after))
    if len(first) != len(second):
        return f"{len(first)} rows and {len(second)}"
    for number, (a, b) in enumerate(zip(first, second, strict=True), start=1):
        if a == b:
            continue
        left, right = json.loads(a), json.loads(b)
        common = [key for key in left if key in right]
        if [json.dumps(left[key]) for key in common] != [json.dumps(right[key]) for key in common]:
            wrong = [key for key in common if json.dumps(left[key]) != json.dumps(right[key])]
            return f"row {number}: " + ", ".join(f"{key} {left[key]!r:.60} and {right[key]!r:.60}" for key in wrong)
    return ""


def parameters(folder: Path) -> dict[str, np.ndarray]:
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    return {name: np.asarray(leaf) for name, leaf in flatten_dict(load_params(str(folder), mesh), sep="/").items()}


def differences(before: Path, after: Path) -> tuple[list[str], str]:
    """(what differs, how much was compared)."""
    first, second, found = records(before), records(after), []
    for name in sorted(first.keys() | second.keys()):
        if name not in first or name not in second:
            found.append(f"{name} is on one side alone")
        elif why := rows_differ(first[name], second[name]):
            found.append(f"{name}: {why}")
    old, new = models(before), models(after)
    if old.keys() != new.keys():
        found.append(f"models {sorted(old)} and {sorted(new)}")
    for name in sorted(old.keys() & new.keys()):
        a, b = parameters(old[name]), parameters(new[name])
        same = {path for path in a.keys() & b.keys() if a[path].tobytes() == b[path].tobytes()}
        wrong = sorted((a.keys() | b.keys()) - same)
        if wrong:
            most = max(float(np.abs(a[path].astype(np.float64) - b[path]).max()) for path in wrong if path in a and path in b)
            found.append(f"{name}: {len(wrong)} of {len(a)} parameters differ, by at most {most:.3g}")
    return found, f"{len(first)} files of records and {len(old)} models are the same"


if __name__ == "__main__":
    wrong, compared = differences(*map(Path, sys.argv[1:3]))
    print("\n".join(wrong) or compared)
    sys.exit(bool(wrong))

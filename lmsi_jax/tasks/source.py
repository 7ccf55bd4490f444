"""Questions of a published data set, from its own files or from TensorFlow Datasets, read without TensorFlow."""

from collections.abc import Callable, Iterator
from typing import Any

from etils import epath

from lmsi_jax.core.errors import UserError
from lmsi_jax.core.progress import console
from lmsi_jax.core.records import Record
from lmsi_jax.tasks.dataset import BadRow, Dataset, Row

SHOWN = 5  # bad rows named in an error


def load_split(dataset: Dataset, split: str, source: str, folder: str, *, skip_malformed: bool = False) -> list[Record]:
    """The questions of one split: `id`, `question`, `choices`, `answer`, and `answers` where several are right.

    `source` is "files" (the published ones, in `folder`) or "tfds" (`folder` is its data directory; "" is
    TFDS's own). Rows that cannot be read are an error that names them, or with `skip_malformed` left out and counted.
    """
    rows, read = _from_files(dataset, split, folder) if source == "files" else _from_tfds(dataset, split, folder)
    questions, bad, without = [], [], 0
    for number, row in enumerate(rows, start=1):
        try:
            record = read(row)
        except BadRow as error:
            bad.append(str(error))
            continue
        without += record is None
        if record is not None:
            questions.append({"id": f"{dataset.name}-{split}-{number:05d}", "choices": None, **record})
    _report(dataset.name, split, len(questions), bad, without, skip_malformed)
    return questions


def _report(name: str, split: str, count: int, bad: list[str], without: int, skip_malformed: bool) -> None:
    if bad and not skip_malformed:
        listed = "\n  ".join(bad[:SHOWN] + ([f"and {len(bad) - SHOWN} more"] if len(bad) > SHOWN else []))
        raise UserError(
            f"{name} {split}: {len(bad)} of {count + len(bad)} rows cannot be read:\n  {listed}\nMend the file, or go on "
            f"without them with --config.data.skip_malformed=True."
        )
    left_out = [f"{len(bad)} malformed, first: {bad[0]}"] if bad else []
    left_out += [f"{without} that the set marks as having no answer"] if without else []
    if left_out:
        console.print(f"{name} {split}: {count} questions; left out: {'; '.join(left_out)}")
    if not count:
        raise UserError(f"{name} {split}: no question can be read.")


Source = tuple[Iterator[Row], Callable[[Row], Record | None]]


def _from_files(dataset: Dataset, split: str, folder: str) -> Source:
    name = _named(dataset, split, dataset.files)
    if not folder:
        raise UserError(
            f"data.source='files' needs the folder of {dataset.name}'s published files ({', '.join(dataset.files.values())}); "
            f"set --config.data.folder=DIR."
        )
    path = epath.Path(folder) / name
    if not path.exists():
        raise UserError(f"{path} does not exist; it is the file of {dataset.name}'s split '{split}'.")
    return dataset.rows(path), dataset.read


def _from_tfds(dataset: Dataset, split: str, folder: str) -> Source:
    if dataset.read_tfds is None:
        raise UserError(
            f"TensorFlow Datasets has no {dataset.name}; use its published files: --config.data.source=files "
            f"--config.data.folder=DIR ({', '.join(dataset.files.values())})."
        )
    name = _named(dataset, split, dataset.tfds_splits)
    import tensorflow_datasets as tfds  # imports in a second; the other sources need not wait

    prepared = _prepared(epath.Path(folder or tfds.core.constants.DATA_DIR), dataset.tfds)
    builder = tfds.builder_from_directory(prepared)
    if name not in builder.info.splits:
        raise UserError(f"{prepared} has the splits {', '.join(builder.info.splits)}, and not '{name}'.")
    data = builder.as_data_source(split=name)
    rows = (Row(_as_text(data[i]), f"{dataset.tfds} {name} row {i + 1}") for i in range(len(data)))
    return rows, dataset.read_tfds


def _prepared(data_dir: epath.Path, name: str) -> epath.Path:
    """The newest prepared version of a TFDS data set."""
    folder = data_dir / name
    found = [path for path in folder.iterdir() if (path / "features.json").exists()] if folder.exists() else []
    found.sort(key=lambda path: [int(part) for part in path.name.split(".") if part.isdigit()])
    files = list(found[-1].iterdir()) if found else []
    if not any(".array_record" in path.name for path in files):
        stands = f"{found[-1]} is prepared in another file format" if found else f"{folder} is not there"
        raise UserError(
            f"{stands}; reading without TensorFlow needs ArrayRecord. Prepare it once, where TensorFlow is installed: "
            f"`tfds build {name} --file_format=array_record`, and name its data directory (now {data_dir}) with "
            f"--config.data.folder=DIR."
        )
    return found[-1]


def _named(dataset: Dataset, split: str, names: Any) -> str:
    if split not in names:
        raise UserError(f"{dataset.name} has the splits {', '.join(names)} here, and not '{split}'.")
    return names[split]


def _as_text(value: Any) -> Any:
    """TFDS gives text as bytes, lists as arrays and numbers as NumPy scalars."""
    if isinstance(value, dict):
        return {key: _as_text(item) for key, item in value.items()}
    if isinstance(value, bytes):
        return value.decode("utf-8")
    if getattr(value, "ndim", None) == 0:
        return _as_text(value.item())
    if hasattr(value, "tolist") or isinstance(value, list):
        return [_as_text(item) for item in value]
    return value

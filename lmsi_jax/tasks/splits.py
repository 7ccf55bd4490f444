"""Read the questions of a published data set from its own files or from TensorFlow Datasets, without TensorFlow."""

from collections.abc import Callable, Iterator
from typing import Any

from etils import epath

from lmsi_jax.core.errors import UserError
from lmsi_jax.core.progress import console
from lmsi_jax.core.records import Record
from lmsi_jax.tasks.dataset import BadRow, Dataset, Row

SHOWN = 5  # malformed rows that an error lists


def load_split(dataset: Dataset, split: str, source: str, folder: str, *, skip_malformed: bool = False) -> list[Record]:
    """Return the questions of one split: `id`, `question`, `choices`, `answer`, and `answers` when several are accepted.

    `source` is "files" (the published files, in `folder` or in its folder of the data set's name) or "tfds" (`folder` is the
    data directory, "" = the TFDS default).
    Raises UserError that lists rows that cannot be read; with `skip_malformed` they are skipped and counted instead.
    """
    rows, read = _from_files(dataset, split, folder) if source == "files" else _from_tfds(dataset, split, folder)
    questions, bad, unanswered = [], [], 0
    for number, row in enumerate(rows, start=1):
        try:
            record = read(row)
        except BadRow as error:
            bad.append(str(error))
            continue
        unanswered += record is None
        if record is not None:
            questions.append({"id": f"{dataset.name}-{split}-{number:05d}", "choices": None, **record})
    _report(dataset.name, split, len(questions), bad, unanswered, skip_malformed)
    return questions


def _report(name: str, split: str, count: int, bad: list[str], unanswered: int, skip_malformed: bool) -> None:
    if bad and not skip_malformed:
        listed = "\n  ".join(bad[:SHOWN] + ([f"and {len(bad) - SHOWN} more"] if len(bad) > SHOWN else []))
        raise UserError(
            f"{name} {split}: {len(bad)} of {count + len(bad)} rows cannot be read:\n  {listed}\nCorrect the file, or skip "
            f"them with --config.data.skip_malformed=True."
        )
    skipped = [f"{len(bad)} malformed, first: {bad[0]}"] if bad else []
    skipped += [f"{unanswered} that the data set marks as having no answer"] if unanswered else []
    if skipped:
        console.print(f"{name} {split}: {count} questions; skipped: {'; '.join(skipped)}")
    if not count:
        raise UserError(f"{name} {split}: no question can be read.")


Source = tuple[Iterator[Row], Callable[[Row], Record | None]]


def _from_files(dataset: Dataset, split: str, folder: str) -> Source:
    _check_split(dataset, split)
    if not folder:
        raise UserError(
            f"data.source='files' needs the folder of {dataset.name}'s published files ({', '.join(dataset.files.values())}); "
            f"set --config.data.folder=DIR."
        )
    own, file = epath.Path(folder) / dataset.name, dataset.files[split]
    path = own / file if own.is_dir() else epath.Path(folder) / file
    if not path.exists():
        raise UserError(
            f"{path} does not exist; it is the file of {dataset.name}'s split '{split}', in data.folder or in its folder "
            f"{dataset.name}."
        )
    return dataset.rows(path), dataset.read


def _from_tfds(dataset: Dataset, split: str, folder: str) -> Source:
    if dataset.read_tfds is None:
        raise UserError(
            f"TensorFlow Datasets has no {dataset.name}; use its published files: --config.data.source=files "
            f"--config.data.folder=DIR ({', '.join(dataset.files.values())})."
        )
    _check_split(dataset, split)
    import tensorflow_datasets as tfds  # takes a second to import, which other sources avoid

    prepared = _prepared(epath.Path(folder or tfds.core.constants.DATA_DIR), dataset.tfds)
    builder, name = tfds.builder_from_directory(prepared), dataset.tfds_splits.get(split, split)
    if name not in builder.info.splits:
        raise UserError(f"{prepared} has the splits {', '.join(builder.info.splits)}, and not '{name}'.")
    data = builder.as_data_source(split=name)
    rows = (Row(_as_text(data[i]), f"{dataset.tfds} {name} row {i + 1}") for i in range(len(data)))
    return rows, dataset.read_tfds


def _prepared(data_dir: epath.Path, name: str) -> epath.Path:
    """Return the folder of the newest prepared version of a TFDS data set."""
    folder = data_dir / name
    versions = [path for path in folder.iterdir() if (path / "features.json").exists()] if folder.exists() else []
    versions.sort(key=lambda path: [int(part) for part in path.name.split(".") if part.isdigit()])
    files = list(versions[-1].iterdir()) if versions else []
    if not any(".array_record" in path.name for path in files):
        problem = f"{versions[-1]} is prepared in another file format" if versions else f"{folder} does not exist"
        raise UserError(
            f"{problem}; reading without TensorFlow needs ArrayRecord. Prepare it once, where TensorFlow is installed: "
            f"`tfds build {name} --file_format=array_record`, and name its data directory (now {data_dir}) with "
            f"--config.data.folder=DIR."
        )
    return versions[-1]


def _check_split(dataset: Dataset, split: str) -> None:
    if split not in dataset.files:
        raise UserError(f"{dataset.name} has the splits {', '.join(dataset.files)} here, and not '{split}'.")


def _as_text(value: Any) -> Any:
    """Return a TFDS value as JSON types. TFDS gives text as bytes, lists as arrays and numbers as NumPy scalars."""
    if isinstance(value, dict):
        return {key: _as_text(item) for key, item in value.items()}
    if isinstance(value, bytes):
        return value.decode("utf-8")
    if getattr(value, "ndim", None) == 0:
        return _as_text(value.item())
    if hasattr(value, "tolist") or isinstance(value, list):
        return [_as_text(item) for item in value]
    return value

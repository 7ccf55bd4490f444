"""Files of a run, on a local disk or in a bucket. A file is complete or absent, even when the process is killed.

On a local disk a file is written under a temporary name and then renamed. In a bucket an object appears only when its
upload is complete, so it is written under its own name.
"""

import functools
import hashlib
import json
import os
import time
from collections.abc import Iterator
from typing import Any

import fsspec
from etils import epath

from lmsi_jax.core.errors import UserError
from lmsi_jax.core.text import clean

# A cached listing of a bucket would miss objects that another process has written since.
for _protocol in ("gcs", "s3", "abfs"):
    fsspec.config.conf.setdefault(_protocol, {})["use_listings_cache"] = False

LARGE_FILE = 2**20  # bytes; a larger file in a bucket is compared by the checksum that the bucket stores
BLOCK = 2**22  # bytes read at a time
CHECKSUMS = ("crc32c", "md5Hash", "ETag")  # the names that buckets give to the checksum of an object
UNFINISHED = ".unfinished"  # the file that marks a folder in a bucket as incomplete
UPLOAD_SECONDS = 20.0  # minimum time between two uploads of a growing file


def is_local(path: os.PathLike | str) -> bool:
    """Return whether the path is on a file system of this machine, and not in a bucket such as gs://."""
    return "://" not in os.fspath(path)


def absolute(name: os.PathLike | str) -> epath.Path:
    """Return the absolute path of a local file; the address of a bucket is returned unchanged.

    Raises UserError when the library that opens such a bucket is not installed.
    """
    path = epath.Path(name)
    if is_local(path):
        return path.absolute()
    try:
        fsspec.get_filesystem_class(os.fspath(path).partition(":")[0])
    except (ImportError, ValueError) as error:
        raise UserError(
            f"{path} is in a bucket, and the library that opens it is not installed ({error}). The extras tpu and cuda "
            f"include it for gs://: pip install 'lmsi_jax[tpu]', or pip install gcsfs."
        ) from error
    return path


def write_text(file: os.PathLike | str, text: str) -> None:
    """Write `text` as UTF-8, completely or not at all. A lone surrogate, which UTF-8 cannot encode, becomes U+FFFD."""
    write_bytes(file, clean(text).encode("utf-8"))


def write_bytes(file: os.PathLike | str, content: bytes) -> None:
    """Write a file, completely or not at all. Raises UserError when the file system refuses the write."""
    path = epath.Path(file)
    temporary = path.parent / f".{path.name}.{os.getpid()}.tmp"
    try:
        if not is_local(path):
            path.write_bytes(content)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError as error:
        if is_local(path) and os.path.exists(temporary):
            os.unlink(temporary)
        remedy = "free space" if is_local(path) else "check that the bucket exists and that you may write to it"
        raise UserError(
            f"Cannot write {path}: {error.strerror or error}. No part of this file was written; {remedy} or choose another "
            f"--workdir, and start the same command again: finished stages are reused."
        ) from error


def read_json(file: os.PathLike | str) -> Any:
    """Return the value in a JSON file. Raises UserError, with the name of the file, when its content is not valid JSON."""
    path = epath.Path(file)
    try:
        return json.loads(path.read_bytes().decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({error}); restore it, or remove it and start again.") from error


def read_object(file: epath.Path) -> dict[str, Any]:
    """Return the JSON object in a file of a model. Raises UserError, with the name of the file, when there is none."""
    try:
        content = json.loads(file.read_text())
    except ValueError as error:
        raise UserError(f"{file} is not valid JSON ({error}); copy it again from the model's source.") from error
    if not isinstance(content, dict):
        raise UserError(f"{file} is not a JSON object; copy it again from the model's source.")
    return content


def remove(path: epath.Path) -> None:
    """Remove a file, or a folder with all of its content. A path that does not exist is ignored."""
    if path.is_dir():
        path.rmtree()
    elif path.exists():
        path.unlink()


def begin_folder(target: epath.Path) -> epath.Path:
    """Create and return the folder to write to, so that `target` is complete or absent: a temporary folder beside `target`.

    In a bucket, where a folder cannot be renamed, it is `target` itself, marked as UNFINISHED. Anything that exists under
    the name of the returned folder is removed first, so the caller has to check that this is allowed.
    """
    place = target.parent / f".{target.name}.tmp" if is_local(target) else target
    remove(place)
    place.mkdir(parents=True, exist_ok=True)
    if not is_local(place):
        write_text(place / UNFINISHED, "")
    return place


def publish_folder(place: epath.Path, target: epath.Path) -> None:
    """Complete `target`: rename `place`, the folder from `begin_folder`, to it. An existing `target` is replaced."""
    if is_local(target):
        remove(target)
        place.rename(target)
    else:
        (target / UNFINISHED).unlink()


def is_unfinished(folder: epath.Path) -> bool:
    """Return whether a folder in a bucket is incomplete: `publish_folder` never followed its `begin_folder`."""
    return (folder / UNFINISHED).exists()


def remove_temporary(folder: epath.Path) -> None:
    """Remove the temporary files that `write_bytes` left below a local `folder` when its process was killed."""
    for path in walk(folder) if is_local(folder) and folder.exists() else ():
        if path.name.startswith(".") and path.name.endswith(".tmp"):
            path.unlink(missing_ok=True)


def walk(folder: epath.Path) -> Iterator[epath.Path]:
    """Yield every file below `folder`, at any depth."""
    for path in folder.iterdir():
        yield from walk(path) if path.is_dir() else (path,)


def path_fingerprint(source: os.PathLike | str) -> str:
    """Return 16 hex digits that identify the content of a file, or the names and contents of all files below a folder."""
    path = epath.Path(source)
    if not path.is_dir():
        return _content(path)[:16]
    contents = sorted((str(file.relative_to(path)), _content(file)) for file in walk(path))
    return hashlib.sha256(json.dumps(contents).encode()).hexdigest()[:16]


def _content(path: epath.Path) -> str:
    """Return a digest of a file's bytes. A large file in a bucket is not downloaded: the bucket stores a checksum of it."""
    if is_local(path):
        stat = os.stat(path)
        return _digest(os.fspath(path), stat.st_size, stat.st_mtime_ns, stat.st_ino)
    file_system, name = fsspec.core.url_to_fs(os.fspath(path))
    about = file_system.info(name)
    if about["size"] > LARGE_FILE:
        known = [about[key] for key in CHECKSUMS if about.get(key)] or [file_system.checksum(name)]
        return hashlib.sha256(f"{about['size']} {known[0]}".encode()).hexdigest()
    return hashlib.sha256(path.read_bytes()).hexdigest()


@functools.lru_cache(maxsize=4096)
def _digest(path: str, size: int, changed: int, inode: int) -> str:
    """Return the digest of a local file. A process computes it once for each state of the file."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


class GrowingFile:
    """A text file that lines are appended to. A local file grows at once; one in a bucket is uploaded in full at intervals."""

    def __init__(self, path: epath.Path, text: str = ""):
        """`text` is the initial content; it replaces the content of an existing file."""
        self._path, self._text, self._uploaded = path, text, time.monotonic()
        write_text(path, text)
        self._stream = open(path, "a", encoding="utf-8") if is_local(path) else None  # noqa: SIM115 (closed by close())

    def add(self, line: str) -> None:
        """Append a line, given without its line break."""
        if self._stream:
            self._stream.write(line + "\n")
            self._stream.flush()
            return
        self._text += line + "\n"
        if time.monotonic() - self._uploaded > UPLOAD_SECONDS:
            self._upload()

    def _upload(self) -> None:
        write_text(self._path, self._text)
        self._uploaded = time.monotonic()

    def close(self) -> None:
        """Write what is not yet written, and close the file."""
        if self._stream:
            self._stream.close()
        else:
            self._upload()

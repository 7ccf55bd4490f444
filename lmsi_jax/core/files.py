"""Files of a run on any file system, local or a bucket: each is whole or absent, whatever instant the process is killed at.

On a local disk a file is written under a temporary name and renamed. In a bucket an object appears when its upload is
complete, so that it is written under its own name.
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

# Objects that another process wrote are looked up, and not taken from a listing that this process made before.
for _protocol in ("gcs", "s3", "abfs"):
    fsspec.config.conf.setdefault(_protocol, {})["use_listings_cache"] = False

LARGE_FILE = 2**20  # bytes; the contents of a larger file in a bucket are compared by the bucket's own checksum
BLOCK = 2**22  # bytes read at a time
CHECKSUMS = ("crc32c", "md5Hash", "ETag")  # what buckets call a checksum of an object's content
UNFINISHED = ".unfinished"  # a file that marks a folder in a bucket as not whole yet
UPLOAD_SECONDS = 20.0  # least time between two uploads of a file that grows


def is_local(path: os.PathLike | str) -> bool:
    """Is the path on a file system of this machine, and not in a bucket such as gs://?"""
    return "://" not in os.fspath(path)


def absolute(name: os.PathLike | str) -> epath.Path:
    """The path with its current folder filled in; a bucket's address as it is.

    Raises UserError when what opens such a bucket is not installed.
    """
    path = epath.Path(name)
    if is_local(path):
        return path.absolute()
    try:
        fsspec.get_filesystem_class(os.fspath(path).partition(":")[0])
    except (ImportError, ValueError) as error:
        raise UserError(
            f"{path} is in a bucket, and what opens it is not installed ({error}). The extras tpu and cuda bring it for gs://: "
            f"pip install 'lmsi_jax[tpu]', or pip install gcsfs."
        ) from error
    return path


def write_text(file: os.PathLike | str, text: str) -> None:
    """Write `text` as UTF-8, whole or not at all. What UTF-8 cannot hold (a lone surrogate) becomes U+FFFD."""
    write_bytes(file, clean(text).encode("utf-8"))


def write_bytes(file: os.PathLike | str, content: bytes) -> None:
    """Write a file, whole or not at all. Raises UserError when the file system refuses."""
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
        remedy = "free space" if is_local(path) else "check that the bucket is there and that you may write to it"
        raise UserError(
            f"Cannot write {path}: {error.strerror or error}. Nothing of this file was kept; {remedy} or choose another "
            f"--workdir, and start the same command again: finished stages are reused."
        ) from error


def read_json(file: os.PathLike | str) -> Any:
    """The value of a JSON file. Raises UserError that names the file when it holds none."""
    path = epath.Path(file)
    try:
        return json.loads(path.read_bytes().decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({error}); restore it, or remove it and start again.") from error


def remove(path: epath.Path) -> None:
    """Remove a file or a folder with all that is in it, if it is there."""
    if path.is_dir():
        path.rmtree()
    elif path.exists():
        path.unlink()


def begin_folder(target: epath.Path) -> epath.Path:
    """Where to write the files of a folder that is to be whole or absent: a temporary folder beside `target`.

    In a bucket, where no folder can be renamed, it is `target` itself with the mark UNFINISHED. What is at that place already
    is removed: the caller has made sure that it may be.
    """
    place = target.parent / f".{target.name}.tmp" if is_local(target) else target
    remove(place)
    place.mkdir(parents=True, exist_ok=True)
    if not is_local(place):
        write_text(place / UNFINISHED, "")
    return place


def publish_folder(place: epath.Path, target: epath.Path) -> None:
    """Give the folder that `begin_folder` began its name, in the place of what has that name."""
    if is_local(target):
        remove(target)
        place.rename(target)
    else:
        (target / UNFINISHED).unlink()


def is_unfinished(folder: epath.Path) -> bool:
    """Did `begin_folder` begin this folder, and `publish_folder` never end it?"""
    return (folder / UNFINISHED).exists()


def remove_temporary(folder: epath.Path) -> None:
    """Remove what `write_bytes` left below `folder` when its process was killed."""
    for path in walk(folder) if is_local(folder) and folder.exists() else ():
        if path.name.startswith(".") and path.name.endswith(".tmp"):
            path.unlink(missing_ok=True)


def walk(folder: epath.Path) -> Iterator[epath.Path]:
    """Every file below `folder`."""
    for path in folder.iterdir():
        yield from walk(path) if path.is_dir() else (path,)


def path_fingerprint(source: os.PathLike | str) -> str:
    """16 hex digits that change with any byte of a file, or of any file below a folder, and with the files' names."""
    path = epath.Path(source)
    if not path.is_dir():
        return _content(path)[:16]
    contents = sorted((str(file.relative_to(path)), _content(file)) for file in walk(path))
    return hashlib.sha256(json.dumps(contents).encode()).hexdigest()[:16]


def _content(path: epath.Path) -> str:
    """A digest of a file's bytes. Those of a large file in a bucket are not fetched: the bucket knows its own checksum."""
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
    """The digest of a local file, computed once for each of its states in a process."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


class GrowingFile:
    """A text file that lines are added to. A local one grows at once; one in a bucket is uploaded whole now and then."""

    def __init__(self, path: epath.Path, text: str = ""):
        """`text` is what the file holds to begin with, in place of what is there."""
        self._path, self._text, self._uploaded = path, text, time.monotonic()
        write_text(path, text)
        self._stream = open(path, "a", encoding="utf-8") if is_local(path) else None  # noqa: SIM115 (closed by close())

    def add(self, line: str) -> None:
        """Add a line, given without its line break."""
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
        """Write what is not written yet."""
        if self._stream:
            self._stream.close()
        else:
            self._upload()

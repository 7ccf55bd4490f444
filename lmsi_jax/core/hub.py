"""Files of the Hugging Face Hub by address: hf://ORG/NAME@REVISION for a model, hf://datasets/ORG/NAME@REVISION/PATH for data.

`huggingface_hub` downloads them into its cache, resumes what was interrupted, and takes the token, the endpoint (HF_ENDPOINT)
and the offline mode (HF_HUB_OFFLINE) from its own places. Without a revision the address means the branch main.
"""

import contextlib
import dataclasses
import functools
import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from lmsi_jax.core.errors import UserError

SCHEME = "hf://"
MODEL = re.compile(r"hf://(?!datasets/)([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")
DATA = re.compile(r"hf://datasets/([\w.-]+/[\w.-]+)(?:@([\w.-]+))?/(.+)")
CLIENTS = ("huggingface_hub", "httpx", "httpx2", "httpcore", "requests")  # their errors are not all OSErrors


@dataclasses.dataclass(frozen=True)
class Address:
    """A repository of the hub at a revision, and a path in it."""

    kind: str  # "model" or "dataset"
    name: str  # ORG/NAME
    revision: str
    path: str = ""

    def __str__(self) -> str:
        return f"{SCHEME}{'datasets/' if self.kind == 'dataset' else ''}{self.name}@{self.revision}"


def is_address(name: str) -> bool:
    """Return whether a name is an address of the hub."""
    return name.startswith(SCHEME)


def parse(name: str) -> Address:
    """Return the address that a name spells. Raises UserError when it is none."""
    if found := MODEL.fullmatch(name):
        return Address("model", found[1], found[2] or "main")
    if found := DATA.fullmatch(name):
        return Address("dataset", found[1], found[2] or "main", found[3])
    raise UserError(
        f"{name} is not an address of the hub; write hf://ORG/NAME or hf://ORG/NAME@REVISION for a model, and "
        f"hf://datasets/ORG/NAME/CONFIG/SPLIT or hf://datasets/ORG/NAME/FILE for data."
    )


@functools.cache
def listed(address: Address) -> tuple[str, ...]:
    """Return the names of all files of a repository. Offline, those of its cached snapshot."""
    from huggingface_hub import HfApi, constants, snapshot_download

    with _explained(address):
        if constants.HF_HUB_OFFLINE:
            root = Path(snapshot_download(address.name, repo_type=address.kind, revision=address.revision, allow_patterns=[]))
            return tuple(sorted(file.relative_to(root).as_posix() for file in root.rglob("*") if not file.is_dir()))
        return tuple(sorted(HfApi().list_repo_files(address.name, repo_type=address.kind, revision=address.revision)))


@functools.cache
def download(address: Address, patterns: tuple[str, ...]) -> Path:
    """Return the folder of a snapshot with the files that match a pattern; only they are downloaded, once a process.

    Raises UserError when the hub cannot be reached, has no such repository or revision, or no file matches.
    """
    from huggingface_hub import snapshot_download

    with _explained(address):
        folder = Path(
            snapshot_download(address.name, repo_type=address.kind, revision=address.revision, allow_patterns=list(patterns))
        )
    names = [file.relative_to(folder).as_posix() for file in folder.rglob("*") if not file.is_dir()]
    if not any(fnmatch(name, pattern) for name in names for pattern in patterns):
        raise UserError(f"{address} has none of the files {', '.join(patterns)}.")
    return folder


@contextlib.contextmanager
def _explained(address: Address) -> Iterator[None]:
    """Turn an error of the hub or of the network into one that names the remedy."""
    from huggingface_hub import errors

    remedies: Sequence[tuple[type[Exception], str]] = (
        (errors.GatedRepoError, "it asks you to accept its terms: do so on its page, and log in with `hf auth login`"),
        (errors.RepositoryNotFoundError, "there is no such repository, or it is private: `hf auth login` logs in"),
        (errors.HFValidationError, "the hub allows no such name"),
        (errors.RevisionNotFoundError, f"it has no revision '{address.revision}'"),
        (errors.LocalEntryNotFoundError, "it is not in the cache, and the hub cannot be reached"),
    )
    try:
        yield
    except Exception as error:
        if not isinstance(error, OSError) and type(error).__module__.partition(".")[0] not in CLIENTS:
            raise
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status in (401, 403):
            remedy = "the hub refuses this without another login: use `hf auth login`, or HF_TOKEN"
        else:
            remedy = "the hub does not answer; what was downloaded is kept, so try again"
        remedy = next((known for kind, known in remedies if isinstance(error, kind)), remedy)
        raise UserError(f"{address}: {remedy} ({str(error).strip().partition(chr(10))[0]}).") from error


def push(folder: Path, name: str, *, private: bool = True, message: str = "Upload a model") -> str:
    """Upload a folder as a model repository, and return its address on the web. Raises UserError when that is refused."""
    from huggingface_hub import HfApi

    address, api = parse(f"{SCHEME}{name}"), HfApi()
    with _explained(address):
        page: Any = api.create_repo(name, private=private, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=folder, commit_message=message)
    return str(page)

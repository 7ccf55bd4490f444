"""The local object store is one that epath, Orbax and TensorStore take for Google's."""

from urllib.error import HTTPError
from urllib.request import urlopen

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
import tensorstore
from etils import epath

TREE = {"a": np.arange(100_000, dtype=np.float32), "b": {"c": np.ones((3, 4), jnp.bfloat16), "step": np.array(3)}}
LARGE = bytes(range(256)) * 40_000  # gcsfs sends it in several requests


def test_epath_writes_reads_lists_renames_and_removes(bucket):
    """Catches: a store whose objects, folders or renames are not those that epath expects."""
    folder = epath.Path(bucket) / "run"
    for name, content in {"one": b"1", "sub/zwei ä%#?+&": b"", "sub/sub/large": LARGE}.items():
        (folder / name).write_bytes(content)
        assert (folder / name).read_bytes() == content
    assert sorted(path.name for path in folder.iterdir()) == ["one", "sub"]
    assert (folder / "sub").is_dir() and not (folder / "one").is_dir()
    (folder / "one").rename(folder / "two")
    assert not (folder / "one").exists() and (folder / "two").stat().length == 1
    folder.rename(folder.parent / "moved")
    assert not folder.exists() and (folder.parent / "moved/sub/sub/large").read_bytes() == LARGE
    assert [str(path) for path in folder.parent.glob("*/sub/sub")] == [f"{bucket}/moved/sub/sub"]
    (folder.parent / "moved").rmtree()
    assert not list(folder.parent.iterdir())


def test_a_file_is_read_in_parts(bucket):
    """Catches: a store that ignores the range of a request, so that a part of a large file is another part."""
    file = epath.Path(bucket) / "large"
    file.write_bytes(LARGE)
    with file.open("rb") as stream:
        stream.seek(len(LARGE) - 300)
        assert stream.read() == LARGE[-300:]


def test_writes_are_conditional(bucket):
    """Catches: a store that lets the writes of two processes to one manifest of TensorStore overwrite each other."""
    spec = {"driver": "gcs", "bucket": bucket.removeprefix("gs://"), "path": "folder/"}
    store = tensorstore.KvStore.open(spec).result()
    first = store.write("key", b"one").result().generation
    second = store.write("key", b"two", if_equal=first).result().generation
    assert store.write("key", b"three", if_equal=first).result().generation != second
    assert store.read("key").result().value == b"two"
    assert store.list().result() == [b"key"]
    assert store.read("key", if_not_equal=second).result().state == "unspecified"


def test_more_objects_than_a_page(bucket):
    """Catches: a listing that ends after its first page, or repeats a folder on the next one."""
    spec = {"driver": "gcs", "bucket": bucket.removeprefix("gs://")}
    store = tensorstore.KvStore.open(spec).result()
    folders = [f"{number:04}" for number in range(1005)]
    for future in [store.write(f"{folder}/{file}", b"") for folder in folders for file in "ab"]:
        future.result()
    assert sorted(path.name for path in epath.Path(bucket).iterdir()) == folders
    assert len(store.list().result()) == 2010


def test_unknown_requests_are_refused_and_noted(store):
    """Catches: a store that answers what it does not implement, so that a test passes by accident."""
    store.make_bucket("strict")
    for path in ("b/strict/acl", "b/strict?userProject=someone"):
        with pytest.raises(HTTPError, match="400"):
            urlopen(f"{store.url}/storage/v1/{path}")
        assert path in store.unknown_requests()[-1]


def test_standard_checkpointer(bucket):
    """Catches: a store that Orbax cannot save parameters to."""
    path = epath.Path(bucket) / "model/params"
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path, TREE)
        checkpointer.wait_until_finished()
        jax.tree.map(np.testing.assert_array_equal, checkpointer.restore(path), TREE)
        checkpointer.save(path, TREE, force=True)


def test_checkpoint_manager(bucket):
    """Catches: a store in which asynchronous saves of the training state are lost or never removed."""
    options = ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=True)
    with ocp.CheckpointManager(epath.Path(bucket) / "state", options=options) as manager:
        for step in (1, 2, 3):
            manager.save(step, args=ocp.args.StandardSave(TREE), custom_metadata={"step": step})
    with ocp.CheckpointManager(epath.Path(bucket) / "state", options=options) as manager:
        assert manager.all_steps() == [2, 3]
        jax.tree.map(np.testing.assert_array_equal, manager.restore(3, args=ocp.args.StandardRestore(TREE)), TREE)
        assert manager.metadata(3).custom_metadata == {"step": 3}

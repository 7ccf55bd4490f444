"""Files that are whole or absent, and fingerprints that see every byte."""

import os

import numpy as np
import pytest
from etils import epath
from safetensors.numpy import save_file

from lmsi_jax.core import files
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.files import GrowingFile, begin_folder, path_fingerprint, publish_folder, remove_temporary, write_text


def test_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    """Catches: a file that is cut in half when the disk is full."""
    path = tmp_path / "a.txt"
    write_text(path, "old")
    monkeypatch.setattr(os, "fsync", lambda fd: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(UserError, match="No space left on device"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_two_writers_of_one_file_do_not_meet(tmp_path):
    """Catches: one temporary name for all processes, so that one renames or removes what another still writes."""
    write_text(tmp_path / "a.txt", "mine")
    names, replace = [], epath.Path.replace

    def watched(path, target):
        names.append(path.name)
        return replace(path, target)

    for process in (1, 2):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "getpid", lambda process=process: process)
            patch.setattr(type(epath.Path(tmp_path)), "replace", watched)
            write_text(tmp_path / "a.txt", str(process))
    assert len(set(names)) == 2, names


def test_what_a_killed_process_left_is_removed(tmp_path):
    """Catches: temporary files that pile up in a work directory with each kill."""
    (tmp_path / "rounds").mkdir()
    (tmp_path / "rounds/.votes.jsonl.123.tmp").write_text("half")
    (tmp_path / "rounds/votes.tmp").write_text("of a user")
    remove_temporary(epath.Path(tmp_path))
    assert [path.name for path in (tmp_path / "rounds").iterdir()] == ["votes.tmp"]


def test_a_fingerprint_changes_with_any_value_of_a_checkpoint(tmp_path):
    """Catches: a fingerprint of the end of a large file alone, which does not see a changed embedding."""
    tensors = {"a_embedding": np.zeros((256, 512), np.float32), "z_norm": np.ones(64 * 1024, np.float32)}
    save_file(tensors, tmp_path / "model.safetensors")
    stat, seen = os.stat(tmp_path / "model.safetensors"), {path_fingerprint(tmp_path)}
    rng = np.random.default_rng(0)
    for name in tensors:
        for at in rng.integers(0, tensors[name].size, 4):
            changed = {key: value.copy() for key, value in tensors.items()}
            changed[name].flat[at] += 1
            save_file(changed, tmp_path / "model.safetensors")
            assert os.stat(tmp_path / "model.safetensors").st_size == stat.st_size
            seen.add(path_fingerprint(tmp_path))
    assert len(seen) == 9


def test_a_fingerprint_changes_with_names_and_files(tmp_path):
    """Catches: a stage that is taken for done although a file of its input was renamed or added."""
    (tmp_path / "d" / "e").mkdir(parents=True)
    (tmp_path / "d" / "e" / "f").write_text("1")
    before = path_fingerprint(tmp_path / "d")
    (tmp_path / "d" / "e" / "g").write_text("1")
    added = path_fingerprint(tmp_path / "d")
    (tmp_path / "d" / "e" / "g").rename(tmp_path / "d" / "g")
    assert len({before, added, path_fingerprint(tmp_path / "d")}) == 3


def test_a_folder_is_whole_or_absent(tmp_path):
    """Catches: a folder that stands under its name before its last file is written."""
    target = epath.Path(tmp_path) / "model"
    place = begin_folder(target)
    write_text(place / "a", "1")
    assert not target.exists()
    place = begin_folder(target)  # the process was killed and started again
    write_text(place / "b", "2")
    publish_folder(place, target)
    assert [path.name for path in target.iterdir()] == ["b"] and not place.exists()


def test_a_file_grows_by_lines(tmp_path):
    """Catches: lines that are there only when the file is closed."""
    file = GrowingFile(epath.Path(tmp_path) / "a.jsonl", "0\n")
    file.add("1")
    assert (tmp_path / "a.jsonl").read_text() == "0\n1\n"
    file.close()


def test_a_bucket_that_nothing_installed_opens_is_named_at_once(monkeypatch):
    """Catches: an ImportError and its traceback for --workdir=gs://... after a plain installation."""

    def missing(protocol):
        raise ImportError("Please install gcsfs to access Google Storage")

    monkeypatch.setattr(files.fsspec, "get_filesystem_class", missing)
    with pytest.raises(UserError, match=r"gs://b/run is in a bucket.*pip install 'lmsi_jax\[tpu\]'"):
        files.absolute("gs://b/run")

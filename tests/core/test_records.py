import pytest

from lmsi_jax.core.errors import UserError
from lmsi_jax.core.records import fingerprint, path_fingerprint, read_jsonl, write_jsonl, write_text


def test_round_trip_keeps_unknown_fields_and_unicode(tmp_path):
    """Catches: escaping or field filtering that changes what other programs wrote."""
    rows = [{"id": "1", "text": '\u6f22 \u2028 \\ "x"\n', "other": [1, None]}, {"id": "2"}]
    assert write_jsonl(tmp_path / "a.jsonl", rows) == 2
    assert list(read_jsonl(tmp_path / "a.jsonl")) == rows
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"], "no temporary file is left"


def test_errors_name_file_and_line(tmp_path):
    """Catches: errors that leave the user searching a large file."""
    path = tmp_path / "q.jsonl"
    path.write_text('{"a": 1}\n' * 16 + '{"a": 1\n')
    with pytest.raises(UserError, match="q.jsonl line 17: not valid JSON"):
        list(read_jsonl(path))
    path.write_text('{"a": 1}\n\n[1]\n')
    with pytest.raises(UserError, match="line 3: a JSON list"):
        list(read_jsonl(path))
    path.write_bytes(b'{"a": 1}\n\x00\xff\xfe')
    with pytest.raises(UserError, match="line 2: byte 1 of the line .0xff. is not UTF-8"):
        list(read_jsonl(path))
    with pytest.raises(UserError, match="does not exist"):
        list(read_jsonl(tmp_path / "none.jsonl"))
    with pytest.raises(UserError, match="is a directory"):
        list(read_jsonl(tmp_path))


def test_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    """Catches: a file that is cut in half when the disk is full."""
    import os

    path = tmp_path / "a.txt"
    write_text(path, "old")
    monkeypatch.setattr(os, "fsync", lambda fd: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(UserError, match="No space left on device"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_fingerprints_change_with_content(tmp_path):
    """Catches: a stage that is taken for done although its input changed."""
    (tmp_path / "d" / "e").mkdir(parents=True)
    (tmp_path / "d" / "e" / "f").write_text("1")
    before = path_fingerprint(tmp_path / "d")
    (tmp_path / "d" / "e" / "g").write_text("1")
    assert path_fingerprint(tmp_path / "d") != before
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1}) != fingerprint({"a": 1, "b": 3})

import math

import pytest

from lmsi_jax.core.errors import UserError
from lmsi_jax.core.records import fingerprint, finite, read_jsonl, write_jsonl


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


def test_what_is_written_can_be_read_again(tmp_path):
    """Catches: a half character, NaN or an infinity that lmsi writes into a file and then refuses to read."""
    rows = [{"id": "a\ud83d", "text": "\ud83d\ude00 \udc00\x00\u2028\ufeff", "x": [math.nan, {"y": -math.inf}], "\udfff": 1}]
    write_jsonl(tmp_path / "a.jsonl", rows)
    read = list(read_jsonl(tmp_path / "a.jsonl"))
    assert read == [{"id": "a\ufffd", "text": "\U0001f600 \ufffd\x00\u2028\ufeff", "x": [None, {"y": None}], "\ufffd": 1}]
    (tmp_path / "b.jsonl").write_bytes(b'{"id": "a\\ud83d", "x": NaN}\n')
    (row,) = read_jsonl(tmp_path / "b.jsonl")
    assert row["id"] == "a\ufffd", "half characters are replaced where they come in"
    write_jsonl(tmp_path / "c.jsonl", [row])
    assert (tmp_path / "c.jsonl").read_bytes() == b'{"id": "a\xef\xbf\xbd", "x": null}\n', "JSON has no NaN"


def test_a_mark_of_byte_order_is_no_record(tmp_path):
    """Catches: a file that an editor saved with an empty first line, and that is called broken for what it put in front."""
    (tmp_path / "a.jsonl").write_bytes(b'\xef\xbb\xbf\n{"a": 1}\n')
    assert list(read_jsonl(tmp_path / "a.jsonl")) == [{"a": 1}]


def test_numbers_of_others():
    """Catches: an integer that no float holds, a truth value or a text taken for a number."""
    assert [finite(value) for value in (1, -0.5, True, "1", None, math.nan, -math.inf, 10**400)] == [1.0, -0.5, *[None] * 6]


@pytest.mark.parametrize("nested", ["[" * 100_000 + "]" * 100_000, '{"a":' * 200 + "1" + "}" * 200])
def test_deep_json_names_the_line(nested, tmp_path):
    """Catches: a RecursionError for a line of a hundred thousand brackets, where it is read or where it is written."""
    (tmp_path / "deep.jsonl").write_text('{"id": "1"}\n{"id": "2", "x": ' + nested + "}\n")
    with pytest.raises(UserError, match="deep.jsonl line 2: lists and objects are nested more than 100 deep"):
        list(read_jsonl(tmp_path / "deep.jsonl"))


def test_fingerprints_of_values_are_of_values():
    """Catches: a fingerprint that depends on the order of keys, or does not change with a value."""
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1}) != fingerprint({"a": 1, "b": 3})

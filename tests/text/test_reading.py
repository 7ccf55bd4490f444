"""Text in: whatever stands in a file or a model's answer is read or refused by name, and what is read can be written again."""

import functools
import itertools
import json
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lmsi_jax.analysis.rounds import REASONS
from lmsi_jax.answers import extract
from lmsi_jax.answers.labels import LETTERS
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.records import numbered_jsonl, read_jsonl, write_jsonl
from lmsi_jax.core.text import clean_text, printable
from lmsi_jax.formatting.examples import tokenize
from lmsi_jax.formatting.packing import pack
from lmsi_jax.tasks.dataset import Row
from lmsi_jax.tasks.questions import load_questions
from lmsi_jax.tasks.sets import DATASETS
from lmsi_jax.tasks.task import load_exemplars
from tests.text import nasty

LINES = (
    b"", b" \t\r", b"\xef\xbb\xbf", b"\xff\xfe{\x00", b"\xed\xa0\xbd", b'{"a": "\xed\xa0\xbd"}', b'{"a": 1}\r', b"{", b"[]",
    b"null", b'{"a": NaN}', b'{"a": -Infinity}', b'{"a": 1e999}', b'{"a": ' + b"1" * 5000 + b"}",
    b'{"a": ' + b"[" * 5000 + b"]" * 5000 + b"}", b'{"a":' * 120 + b"1" + b"}" * 120, b"[" * 200_000,
    b'{"\\ud83d": "\\ude00"}', b'{"a": "\x00"}', b'{"a": "\\u0000"}', b'{"a": 1, "a": 2}', b'\xef\xbb\xbf{"a": 1}',
    b'{"a": "\xc2\x85\xe2\x80\xa8"}',
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("text")


def read_or_refused(read):
    """What `read` gives, or None where it refuses with a message that a terminal can show."""
    try:
        return read()
    except UserError as error:
        assert str(error).strip() and len(str(error)) < 2000, "a message is read by people"
        printable(str(error)).encode("utf-8")
        return None


@given(nasty.texts)
@nasty.examples(300)
def test_clean_text_once_is_enough(text):
    """Catches: a text that changes again when it is cleaned again, or that UTF-8 cannot hold after it."""
    once = clean_text(text)
    assert clean_text(once) == once and once.encode("utf-8").decode("utf-8") == once
    assert len(once) <= len(text) and (once == text or any("\ud800" <= c <= "\udfff" for c in text))


@given(st.lists(nasty.records, max_size=20))
@example([{"text": "\u2028\ud83d" * 350_000}])
@nasty.examples(50)
def test_records_come_back(folder, rows):
    """Catches: a record that is lost, split in two or changed on its way through a file."""
    assert write_jsonl(folder / "r.jsonl", rows) == len(rows)
    read = list(read_jsonl(folder / "r.jsonl"))
    assert nasty.same(read, [nasty.as_read(row) for row in rows])
    written = (folder / "r.jsonl").read_bytes()
    assert nasty.same([json.loads(line, parse_constant=pytest.fail) for line in written.split(b"\n") if line], read)
    write_jsonl(folder / "again.jsonl", read_jsonl(folder / "r.jsonl"))
    assert nasty.same(list(read_jsonl(folder / "again.jsonl")), read)


@given(st.lists(st.sampled_from(LINES) | st.binary(max_size=20), max_size=12))
@nasty.examples(200)
def test_bytes_are_records_or_refused(folder, lines):
    """Catches: bytes of any kind that end in another error than one that names the file and the line."""
    (folder / "b.jsonl").write_bytes(b"\n".join(lines))
    found, refused = [], False
    try:
        found += numbered_jsonl(folder / "b.jsonl")
    except UserError as error:
        refused = True
        assert str(error).startswith(f"{folder}/b.jsonl line ") and len(str(error)) < 1000
    assert all(isinstance(row, dict) for _, row in found)
    assert found or any(line.removeprefix(b"\xef\xbb\xbf").strip() for line in lines) or not refused
    assert write_jsonl(folder / "c.jsonl", [row for _, row in found]) == len(list(read_jsonl(folder / "c.jsonl"))) == len(found)


asked = st.fixed_dictionaries(
    {},
    optional={
        "id": nasty.texts | nasty.values,
        "question": nasty.questions | nasty.values,
        "choices": st.lists(nasty.texts, max_size=28) | nasty.values,
        "answer": nasty.texts | nasty.values,
        "answers": st.lists(nasty.texts, max_size=3) | nasty.values,
        "reasoning": nasty.texts | nasty.values,
        "more": nasty.values,
    },
)
good = st.fixed_dictionaries(
    {"question": nasty.questions},
    optional={"choices": st.lists(nasty.texts, min_size=2, max_size=len(LETTERS)), "more": nasty.values},
)


@given(st.lists(asked, max_size=3), st.lists(good, max_size=20), st.lists(nasty.questions, unique_by=clean_text, max_size=20))
@nasty.examples(50)
def test_questions_come_back(folder, odd, plain, ids):
    """Catches: a question file that ends in a traceback, and a question that is not the same when it is loaded again."""
    rows = [{**row, "id": id} for row, id in zip(plain, ids, strict=False)]
    for kept in (rows, [*odd, *rows]):
        write_jsonl(folder / "q.jsonl", kept)
        found = read_or_refused(lambda: load_questions(folder / "q.jsonl"))
        assert found is not None or odd or not rows
        if found:
            assert len(found) == len(kept) == len({row["id"] for row in found})
            write_jsonl(folder / "again.jsonl", found)
            assert nasty.same(load_questions(folder / "again.jsonl"), nasty.as_read(found))


PUBLISHED = (
    "question", "answer", "answerKey", "choices", "options", "correct", "sQuestion", "lSolutions", "ID", "Body", "Question",
    "Answer", "label", "uid", "context", "hypothesis", "premise", "gold_label", "sentence1", "sentence2", "pairID", "passage",
    "query_id", "validated_answers", "input", "target_scores", "qid", "id", "stem", "text", "number", "date", "spans", "day",
)  # fmt: skip
inside = st.dictionaries(st.sampled_from(PUBLISHED), nasty.values, max_size=5)
published = st.dictionaries(st.sampled_from(PUBLISHED), nasty.texts | nasty.values | inside | st.lists(inside, max_size=3))


@given(st.lists(published, max_size=5))
@nasty.examples(100)
def test_rows_of_data_sets_are_read_or_refused(rows):
    """Catches: a row of a published file that ends in a traceback for a field of another type."""
    for dataset, fields in itertools.product(DATASETS.values(), rows):
        found = read_or_refused(functools.partial(dataset.read, Row(fields, "here")))
        assert found is None or found["question"].strip()


@given(st.lists(asked, max_size=6), st.sampled_from(extract.TYPES))
@nasty.examples(80)
def test_exemplars_are_read_or_refused(folder, rows, answer_type):
    """Catches: an exemplar file that ends in a traceback, or an exemplar without an answer of its type."""
    rows = [{"question": "1 + 1?", "reasoning": "", "answer": "7", **row} for row in rows]
    write_jsonl(folder / "e.jsonl", rows)
    found = read_or_refused(lambda: load_exemplars(folder / "e.jsonl", answer_type))
    for exemplar in found or ():
        assert extract.canonical(exemplar.answer, answer_type) is not None
    assert not found or len(found) == len(rows)


@given(st.lists(nasty.texts, min_size=1, max_size=3), st.sampled_from(extract.TYPES))
@nasty.examples(120)
def test_answers_are_canonical_or_a_reason(found, answer_type):
    """Catches: an answer that is another when it is read again, a reason without a wording, an error of a parser."""
    values = []
    for text in nasty.outputs(found):
        for finish, flexible in (("stop", False), ("length", False), ("stop", True)):
            read = extract.extract(text, answer_type, finish, flexible=flexible)
            if isinstance(read, extract.Abstention):
                assert read.reason in REASONS
                continue
            assert extract.canonical(read.value, answer_type) == read.value, text
            values.append(read.value)
            assert "\n" not in read.value and read.value.strip()
    if answer_type != "math":  # whose comparisons are a process that may take seconds for one
        assert extract.group([*values, None], answer_type) == [*values, None]
        for a, b in itertools.pairwise(values):
            assert extract.equivalent(a, b, answer_type) == extract.equivalent(b, a, answer_type) == (a == b)


@pytest.mark.parametrize("answer_type", extract.TYPES)
def test_long_texts_take_no_second(answer_type):
    """Catches: a pattern that tries every way of splitting a long run of one thing."""
    slow = []
    for fragment in ("(A) ", "The answer is 7. ", "1 = ", "or ", "{", "(", "*", *nasty.FRAGMENTS[::3]):
        for lead in ("", "The answer is ", "(A) is the ", "A: "):
            text = (lead + fragment * (20_000 // max(len(fragment), 1)))[:20_000] + " a b c d e"
            start = time.thread_time()
            extract.extract(text, answer_type, flexible=True)
            if time.thread_time() - start > 1:
                slow.append((lead, fragment))
    assert not slow


@given(st.lists(nasty.texts, min_size=2, max_size=20))
@nasty.examples(60)
def test_tokens_are_the_text(tokenizer, found):
    """Catches: text that the built-in tokenizer drops, or takes for a control token; a row that packing shortens."""
    found = [clean_text(text) for text in found]
    rows = [{"prompt": prompt, "target": target, "id": target} for prompt, target in itertools.pairwise(found)]
    pieces = tokenize(rows, tokenizer)
    packed = pack(pieces, max(len(piece.tokens) for piece in pieces))
    shown = []
    for row in range(len(packed)):
        for segment in range(1, packed.segments[row].max() + 1):
            tokens = packed.tokens[row][packed.segments[row] == segment].tolist()
            assert tokens[0] == tokenizer.bos and tokens[-1] == tokenizer.eos
            assert not {tokenizer.bos, tokenizer.eos} & set(tokens[1:-1]), "a control token came out of text"
            shown.append(tokenizer.decode(tokens))
    # SentencePiece writes a space as U+2581, so that this character and a space are one.
    assert sorted(shown) == sorted((row["prompt"] + row["target"]).replace("\u2581", " ") for row in rows)


@given(st.lists(st.dictionaries(st.sampled_from(("id", "format", "prompt", "target")), nasty.values, max_size=4), max_size=4))
@nasty.examples(80)
def test_training_rows_are_read_or_refused(tokenizer, folder, odd):
    """Catches: training rows of another program that end in a traceback, or that are left out."""
    write_jsonl(folder / "t.jsonl", [{"id": "q", "format": "", "prompt": "?", "target": "7", **row} for row in odd])
    rows = list(read_jsonl(folder / "t.jsonl"))
    for weighting in ("token", "row", "question"):
        pieces = read_or_refused(lambda weighting=weighting: tokenize(rows, tokenizer, weighting))
        assert pieces is None or len(pieces) == len(rows) > 0
        if pieces is not None:
            assert pack(pieces, 20_000, share=True).segments.max(axis=1).sum() == len(rows)

"""Converts samples of other engines to paths.jsonl: OpenAI batch files (vLLM writes them) and sample logs of lm-eval."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from etils import epath

from lmsi_jax.core.errors import UserError
from lmsi_jax.core.progress import console
from lmsi_jax.core.records import Record, read_jsonl, write_jsonl

LARGEST = 1e9  # limit of a token's |log-probability|; a comparison with it is false for NaN too


def convert_file(source: epath.Path, output: epath.Path) -> None:
    """Write each sample of `source` as a path. The samples of a question are numbered in the order of the file."""
    total = write_jsonl(output, paths(source))
    console.print(f"convert: {total} paths")


def paths(source: epath.Path) -> Iterator[Record]:
    """Yield the paths in a file of another engine. Raises UserError on a row that is invalid or reports a failure."""
    seen: Counter[str] = Counter()
    first_filter: dict[str, str] = {}
    for number, row in enumerate(read_jsonl(source), start=1):
        where = f"{source} row {number}"
        if "custom_id" in row:
            samples = _openai(row, where)
        elif "resps" in row and "doc_id" in row:
            id = _name(row, "doc_id", where)
            filter = "" if row.get("filter") is None else _name(row, "filter", where)
            if filter != first_filter.setdefault(id, filter):  # the harness logs a sample once for each of its filters
                continue
            samples = _harness(row, id, where)
        else:
            raise UserError(
                f"{where}: neither an OpenAI batch answer (`custom_id`, `response`) nor a sample of lm-eval (`doc_id`, "
                f"`resps`); it has {', '.join(row)}. A file of `id`, `path`, `text` needs no conversion."
            )
        for record in samples:
            yield {"id": record["id"], "path": seen[record["id"]], **record}
            seen[record["id"]] += 1


def _name(row: Record, field: str, where: str) -> str:
    """Return the name of a row's request, document or filter, from one of its fields."""
    value = row[field]
    if type(value) not in (str, int) or value == "":
        raise UserError(f"{where}: `{field}` is {value!r:.60}, not a name; it must be text or a whole number.")
    return str(value)


def _openai(row: Record, where: str) -> Iterator[Record]:
    """Yield the samples of one reply of the OpenAI batch API."""
    response, id = row.get("response"), _name(row, "custom_id", where)
    if row.get("error") or not isinstance(response, dict) or response.get("status_code", 200) != 200:
        raise UserError(f"{where}: request '{id}' failed ({(row.get('error') or response)!r:.200}); sample it again.")
    body = response.get("body")
    choices = body.get("choices") if isinstance(body, dict) else None
    if not isinstance(choices, list) or not choices or not all(isinstance(choice, dict) for choice in choices):
        raise UserError(f"{where}: the answer to request '{id}' has no `choices`; sample it again.")
    for choice in choices:
        message = choice.get("message")
        if not isinstance(message, dict) and "text" not in choice:
            raise UserError(f"{where}: the answer to request '{id}' has neither `message` nor `text`; sample it again.")
        text = message.get("content") if isinstance(message, dict) else choice.get("text")
        if text is not None and not isinstance(text, str):
            raise UserError(f"{where}: the text of request '{id}' is {text!r:.60}, not text.")
        finish = "length" if choice.get("finish_reason") == "length" else "stop"
        yield {"id": id, "text": text or "", "finish": finish, **_logprob(choice)}


def _logprob(choice: Record) -> Record:
    """Return the sum of the tokens' log-probabilities, and their number; {} when one of them is invalid."""
    logprobs = choice.get("logprobs")
    tokens = logprobs.get("content") if isinstance(logprobs, dict) else None
    if not isinstance(tokens, list):
        return {}
    values: list[Any] = [token.get("logprob") if isinstance(token, dict) else None for token in tokens]
    if not all(type(value) in (int, float) and abs(value) <= LARGEST for value in values):
        return {}
    return {"num_tokens": len(values), "logprob": sum(values)}


def _harness(row: Record, id: str, where: str) -> Iterator[Record]:
    """Yield the samples of one row of `lm-eval --log_samples`."""
    repeats = row["resps"] if isinstance(row["resps"], list) else [row["resps"]]
    texts = [text for repeat in repeats for text in (repeat if isinstance(repeat, list) else [repeat])]
    if not texts:
        raise UserError(f"{where}: document {id} has no samples; log them again with `lm-eval --log_samples`.")
    for text in texts:
        if not isinstance(text, str):
            raise UserError(f"{where}: document {id} has {text!r:.60}, not generated text; log-likelihoods are not paths.")
        yield {"id": id, "text": text, "finish": "stop"}

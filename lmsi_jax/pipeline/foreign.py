"""Paths that other engines sampled: OpenAI batch files (vLLM writes them) and the sample logs of lm-eval, as paths.jsonl."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from etils import epath

from lmsi_jax.core.errors import UserError
from lmsi_jax.core.progress import console
from lmsi_jax.core.records import Record, read_jsonl, write_jsonl


def convert_file(source: epath.Path, output: epath.Path) -> None:
    """Write each sample as a path; samples of one question are numbered in the order of the file."""
    total = write_jsonl(output, paths(source))
    console.print(f"convert: {total} paths")


def paths(source: epath.Path) -> Iterator[Record]:
    """The paths of a file of another engine."""
    seen: Counter[str] = Counter()
    first_filter: dict[str, Any] = {}
    for number, row in enumerate(read_jsonl(source), start=1):
        where = f"{source} row {number}"
        if "custom_id" in row:
            samples = _openai(row, where)
        elif "resps" in row and "doc_id" in row:
            # The harness logs a sample once for each of its filters.
            if row.get("filter") != first_filter.setdefault(str(row["doc_id"]), row.get("filter")):
                continue
            samples = _harness(row, where)
        else:
            raise UserError(
                f"{where}: neither an OpenAI batch answer (`custom_id`, `response`) nor a sample of lm-eval (`doc_id`, "
                f"`resps`); it has {', '.join(row)}. A file of `id`, `path`, `text` needs no conversion."
            )
        for record in samples:
            yield {"id": record["id"], "path": seen[record["id"]], **record}
            seen[record["id"]] += 1


def _openai(row: Record, where: str) -> Iterator[Record]:
    """The samples of one answer of the OpenAI batch API."""
    response, id = row.get("response"), str(row["custom_id"])
    if row.get("error") or not isinstance(response, dict) or response.get("status_code", 200) != 200:
        raise UserError(f"{where}: request '{id}' failed ({row.get('error') or response}); sample it again.")
    body = response.get("body")
    choices = body.get("choices") if isinstance(body, dict) else None
    if not isinstance(choices, list) or not choices or not all(isinstance(choice, dict) for choice in choices):
        raise UserError(f"{where}: the answer to request '{id}' has no `choices`; sample it again.")
    for choice in choices:
        message = choice.get("message")
        text = message.get("content") if isinstance(message, dict) else choice.get("text")
        if text is not None and not isinstance(text, str):
            raise UserError(f"{where}: the text of request '{id}' is {text!r:.60}, not text.")
        finish = "length" if choice.get("finish_reason") == "length" else "stop"
        yield {"id": id, "text": text or "", "finish": finish, **_logprob(choice)}


def _logprob(choice: Record) -> Record:
    """The sum of the tokens' log-probabilities, and their number, where the request asked for them."""
    content = (choice.get("logprobs") or {}).get("content") if isinstance(choice.get("logprobs"), dict) else None
    if not isinstance(content, list) or not all(isinstance(token, dict) and "logprob" in token for token in content):
        return {}
    return {"num_tokens": len(content), "logprob": sum(token["logprob"] for token in content)}


def _harness(row: Record, where: str) -> Iterator[Record]:
    """The samples of one row of `lm-eval --log_samples`."""
    repeats = row["resps"] if isinstance(row["resps"], list) else [row["resps"]]
    for repeat in repeats:
        for text in repeat if isinstance(repeat, list) else [repeat]:
            if not isinstance(text, str):
                raise UserError(
                    f"{where}: document {row['doc_id']} holds {text!r:.60}, no generated text: log-likelihoods are no paths."
                )
            yield {"id": str(row["doc_id"]), "text": text, "finish": "stop"}

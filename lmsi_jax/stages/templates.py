"""Templates: prompts with different exemplars, read from the file of exemplars that a model wrote (section 3.3)."""

import dataclasses

from lmsi_jax.answers.reader import AnswerReader
from lmsi_jax.core.records import Record, read_jsonl
from lmsi_jax.formatting.prompts import Prompts
from lmsi_jax.pipeline.run_folder import Files
from lmsi_jax.tasks.prompts import Exemplar
from lmsi_jax.tasks.task import Task
from lmsi_jax.tokenizers import ChatTemplate


@dataclasses.dataclass(frozen=True)
class Template:
    """Prompts with the same exemplars, and the questions that these exemplars ask, as texts."""

    prompts: Prompts
    asked: frozenset[str]


def load_templates(inputs: Files, prompts: Prompts, answer_type: str) -> list[Template]:
    """Return the templates of a stage: its own `prompts`, or those of the file `exemplars` if it is one of its inputs.

    The input `model` has the chat template, for prompts in one.
    """
    if "exemplars" not in inputs:
        return [Template(prompts, frozenset())]
    rows: dict[int, list[Record]] = {}
    for row in read_jsonl(inputs["exemplars"]):
        rows.setdefault(row["template"], []).append(row)
    if prompts.chat is None:
        chat = None
    else:
        from lmsi_jax.checkpoint.folder import load_chat_template  # imports JAX, which plain prompts do not need

        chat = load_chat_template(str(inputs["model"]))
    return [_template(rows[number], answer_type, chat) for number in sorted(rows)]


def _template(rows: list[Record], answer_type: str, chat: ChatTemplate | None) -> Template:
    exemplars = tuple(Exemplar(r["question"], r["reasoning"], r["answer"], tuple(r.get("choices") or ())) for r in rows)
    prompts = Prompts.of(Task("", AnswerReader(answer_type), exemplars), chat)
    return Template(prompts, frozenset(row["question"] for row in rows))

"""Templates: prompts with different exemplars, read from the file of exemplars that a model wrote (section 3.3)."""

import dataclasses

from etils import epath

from lmsi_jax.answers.reader import AnswerReader
from lmsi_jax.core.records import read_jsonl
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
    if prompts.chat is None:
        chat = None
    else:
        from lmsi_jax.checkpoint.folder import load_chat_template  # imports JAX, which plain prompts do not need

        chat = load_chat_template(str(inputs["model"]))
    return [_template(exemplars, answer_type, chat) for exemplars in read_exemplars(inputs["exemplars"])]


def read_exemplars(file: epath.Path) -> list[tuple[Exemplar, ...]]:
    """Return the exemplars of each template of a file that a model wrote."""
    templates: dict[int, list[Exemplar]] = {}
    for row in read_jsonl(file):
        exemplar = Exemplar(row["question"], row["reasoning"], row["answer"], tuple(row.get("choices") or ()))
        templates.setdefault(row["template"], []).append(exemplar)
    return [tuple(templates[number]) for number in sorted(templates)]


def _template(exemplars: tuple[Exemplar, ...], answer_type: str, chat: ChatTemplate | None) -> Template:
    prompts = Prompts.of(Task("", AnswerReader(answer_type), exemplars), chat)
    return Template(prompts, frozenset(exemplar.question for exemplar in exemplars))

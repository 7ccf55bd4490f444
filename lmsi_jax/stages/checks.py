"""Checks of a run before anything is written or compiled. `lmsi doctor` prints their results one by one.

Each check returns a description of what it checked, or raises UserError. `section` is the section of the root config that
names the model to check, such as "model" or "teacher".
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
from etils import epath

from lmsi_jax.capacity.placement import check_placements
from lmsi_jax.checkpoint import folder
from lmsi_jax.checkpoint.config import SourceConfig
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.records import Record
from lmsi_jax.decoding import memory
from lmsi_jax.decoding.endpoint import Endpoint
from lmsi_jax.formatting.prompts import Prompts, check_control_tokens
from lmsi_jax.model import transformer
from lmsi_jax.model.config import ModelConfig
from lmsi_jax.pipeline.runtime import Runtime
from lmsi_jax.sharding.mesh import Mesh
from lmsi_jax.sharding.rules import param_shardings
from lmsi_jax.stages.prompts import load_prompts
from lmsi_jax.stages.transfer import read_texts
from lmsi_jax.tasks.config import OWN
from lmsi_jax.tasks.prompts import check_stops
from lmsi_jax.tasks.proposals import proposal_prompt
from lmsi_jax.tasks.sources import question_source
from lmsi_jax.tasks.task import load_task
from lmsi_jax.tokenizers import Tokenizer
from lmsi_jax.training.batches import check_batch
from lmsi_jax.training.config import TrainConfig
from lmsi_jax.training.step import abstract_state
from lmsi_jax.training.trainable import trainable
from lmsi_jax.trust.verification import verification_question

WRITTEN = "one that the model writes"  # in place of the id of a question that does not exist yet
SUGGESTED = 8  # tokens of an answer in a suggestion, at most


@dataclasses.dataclass(frozen=True)
class _Model:
    """The parts of a model that the checks use."""

    tokenizer: Tokenizer
    architecture: ModelConfig
    prompts: Prompts

    @classmethod
    def of(cls, config: Any, runtime: Runtime, section: str) -> "_Model":
        source: SourceConfig = getattr(config, section)
        tokenizer = runtime.tokenizer(source.checkpoint, control=config.data.chat)
        return cls(tokenizer, runtime.config(source.checkpoint, source), load_prompts(config.data, source.checkpoint))


def devices(config: Any, runtime: Runtime) -> str:
    """Describe the devices, their free memory and the mesh."""
    mesh = runtime.mesh.devices
    sizes = ", ".join(f"{axis} {size}" for axis, size in mesh.shape.items())
    free = f"{memory.size_text(memory.free_bytes(runtime.mesh))} free each"
    return f"{mesh.size} x {mesh.devices.flat[0].device_kind} ({jax.default_backend()}), {free}; mesh: {sizes}"


def checkpoint(config: Any, runtime: Runtime, section: str) -> str:
    """Check that the stored parameters have the shapes that their config.json implies."""
    source: SourceConfig = getattr(config, section)
    folder.check_params(source.checkpoint)
    c = runtime.config(source.checkpoint, source)
    return (
        f"{source.checkpoint}: {transformer.parameters_text(c)} stored as {c.param_dtype}, {c.layers} layers of "
        f"width {c.width}, context {c.context}; computes in {c.dtype}, with a KV cache in {transformer.cache_dtype(c).name}"
    )


def tokenizer(config: Any, runtime: Runtime, section: str) -> str:
    """Check that the prompt begins with exactly one beginning-of-text token, or with none if the model has no such token."""
    model = _Model.of(config, runtime, section)
    ids = model.tokenizer
    # The later turns of a chat may begin with one too.
    count = ids.start(model.prompts.cot_examples)[:2].count(ids.bos) if ids.bos >= 0 else 0
    if count != (ids.bos >= 0):
        raise UserError(
            f"The prompt begins with {count} tokens of id {ids.bos} (beginning of text) instead of one; remove it from "
            f"the exemplars."
        )
    begins = f"texts begin with id {ids.bos}" if count else "no id begins a text"
    return f"{ids.vocab} ids for {model.architecture.vocab} rows of the embedding; {begins}, ids {ids.ends} end a text"


def sharding(config: Any, runtime: Runtime, section: str, *, samples: bool, trains: bool) -> str:
    """Check that parameters, lanes and batches divide over the mesh, and that no large parameter is replicated."""
    mesh, lanes = runtime.mesh, config.sample.lanes
    check_parameters(mesh, _Model.of(config, runtime, section).architecture, config.mesh.max_replicated_gib)
    shards = mesh.size("batch")
    if samples and lanes % shards:
        raise UserError(
            f"sample.lanes={lanes} does not divide over data x fsdp = {shards} devices; set --config.sample.lanes to a "
            f"multiple of {shards}."
        )
    parts = ["parameters"] + ([f"{lanes or 'as many as fit'} lanes"] if samples else [])
    if trains:
        check_batch(mesh, config.finetune, "finetune")
        parts.append(f"batches of {config.finetune.batch} rows")
    return f"{', '.join(parts[:-1])} and {parts[-1]} divide over the mesh"


def check_parameters(mesh: Mesh, architecture: ModelConfig, max_replicated_gib: float) -> None:
    """Raise UserError when parameters do not divide over the mesh, or when a large one would be replicated."""
    param_shardings(mesh, *transformer.abstract(architecture))
    check_placements(mesh, architecture, max_replicated_gib)


def server(config: Any, runtime: Runtime) -> str:
    """Check that the key or login for the server can be sent, if a server samples the paths."""
    sample = config.sample
    if sample.engine == "mesh":
        return "none; the model samples the paths on the mesh"
    return f"model '{sample.endpoint.model}' samples the paths at {Endpoint(sample.endpoint, sample).url}"


def training_memory(config: Any, runtime: Runtime, section: str) -> str:
    """Describe what training keeps in device memory throughout. It is only a note: gradients and activations come on top."""
    return describe_training_memory(runtime.mesh, _Model.of(config, runtime, section).architecture, config.finetune)


def describe_training_memory(mesh: Mesh, architecture: ModelConfig, train: TrainConfig) -> str:
    """Describe the same memory as `training_memory` for any architecture."""
    state_bytes = memory.bytes_on_device(abstract_state(mesh, trainable(architecture, train), train))
    content = "adapters and their moments" if train.lora.rank else "parameters and moments in float32"
    stored = memory.size_text(memory.weight_bytes(mesh, architecture))
    return (
        f"a device keeps {stored} of the model that training starts from and "
        f"{memory.size_text(state_bytes)} of {content}; gradients and activations come on top"
    )


def stop_strings(config: Any, runtime: Runtime) -> str:
    """Check that no answer of an exemplar contains a stop string."""
    task, stops = load_task(config.data), config.sample.stops
    check_stops(task.exemplars, stops, task.answer_type)
    return f"{len(task.exemplars)} exemplars; none of their answers contains a stop string ({', '.join(map(repr, stops))})"


def lengths(config: Any, runtime: Runtime, section: str, *, trains: bool) -> str:
    """Check that the longest prompt and its path fit the context of the model and, if it trains, a training row."""
    model, source, longest_path = _Model.of(config, runtime, section), question_source(config.data), config.sample.max_tokens
    given = source.training(config.seed)
    questions = given + source.held_out(config.seed)
    check_control_tokens(questions, model.tokenizer)
    few_shot = len(model.tokenizer.start(model.prompts.cot_examples))
    asked = {row["id"]: model.prompts.question(row["question"], row["choices"]) for row in questions}
    sizes = {id: len(model.tokenizer.encode(text)) for id, text in asked.items()}
    if config.data.source == OWN:
        sizes |= _proposed(config, model, given)
    id, longest = max(sizes.items(), key=lambda item: item[1])
    trained, tested = _added_to_questions(config, model.tokenizer, longest_path)
    added = max(trained, tested)
    total, context = few_shot + longest + added + longest_path, model.architecture.context
    more = f" + {added} for suggestions, edited steps or solutions" if added else ""
    parts = (
        f"{few_shot} tokens of few-shot prompt + {longest} of the longest question ('{id}'){more} + {longest_path} to generate"
    )
    if total > context:
        raise UserError(
            f"A prompt does not fit the model: {parts} = {total}, and its context is {context}. Use fewer exemplars "
            f"(--config.data.shots), a smaller --config.sample.max_tokens, or leave that question out."
        )
    if trains:
        setting = "--config.propose.max_tokens" if id == WRITTEN else "--config.data.shots"
        _check_row_length(model, config.finetune, few_shot, longest + trained, longest_path, setting)
    return f"{len(questions)} questions; {parts} = {total} of {context}"


def texts(config: Any, runtime: Runtime) -> str:
    """Check the file of texts whose loss shows what training forgets."""
    file = config.evaluate.texts
    return f"{sum(1 for _ in read_texts(epath.Path(file))):,} texts" if file not in ("", "builtin") else file or "none"


def _proposed(config: Any, model: _Model, given: Sequence[Record]) -> dict[str, int]:
    """Return the most tokens of a question that the model writes itself, after checking that the prompt for it fits."""
    options, encode = config.propose, model.tokenizer.encode
    longest = max((len(encode(proposal_prompt([row], "", instructs=False))) for row in given), default=options.max_tokens)
    prompt = len(encode(proposal_prompt([], options.description, instructs=True))) + options.shown * longest
    total, context = prompt + options.max_tokens, model.architecture.context
    if total > context:
        raise UserError(
            f"The prompt for a proposal does not fit the model: {options.shown} questions of up to {longest} tokens and "
            f"{options.max_tokens} to write may take {total}, and its context is {context}. Lower --config.propose.shown or "
            f"--config.propose.max_tokens."
        )
    return {WRITTEN: len(encode(model.prompts.question("", None))) + options.max_tokens}


def _added_to_questions(config: Any, tokenizer: Tokenizer, longest_path: int) -> tuple[int, int]:
    """Return the most tokens that suggestions, solutions and edited steps add to a question, in training and in tests.

    A judgement writes each step of a solution again with two results, so that it may be twice as long as a path.
    """
    format, options = config.format, getattr(config, "interventions", None)
    judged = len(tokenizer.encode(verification_question("", (), ""))) + longest_path
    trained = [
        _suggested(tokenizer, (*format.hints, getattr(config, "suggestion", ""))),
        judged + longest_path if format.corruptions else 0,
    ]
    tested = [0]
    if options is not None and getattr(config, "faithfulness", True):
        edits = bool({"mistake", "paraphrase"} & {*options.kinds})
        tested += [_suggested(tokenizer, (*options.hints, *options.openings)), longest_path * edits]
        tested.append(judged if "judge" in options.kinds else 0)
    return max(trained), max(tested)


def _suggested(tokenizer: Tokenizer, templates: Sequence[str]) -> int:
    return max((len(tokenizer.encode(f" {text}")) + SUGGESTED for text in templates if text), default=0)


def _check_row_length(model: _Model, train: TrainConfig, few_shot: int, question: int, longest_path: int, setting: str) -> None:
    """Raise UserError when a training row of the longest question might not fit. Shared prompts are outside the rows."""
    zero_shot = len(model.tokenizer.start(model.prompts.render("zero_shot_cot", "")))
    before, label = (zero_shot, "of zero-shot prompt") if train.share_prompts else (few_shot, "of few-shot prompt")
    chat = model.prompts.chat
    around = len(model.tokenizer.encode(chat.before_answer + chat.after_answer)) if chat else 0
    needed = before + question + longest_path + around + 1
    if needed > train.row_length:
        raise UserError(
            f"A training row could be too long: {before} tokens {label} + {question} of the longest question + "
            f"{longest_path} to generate + {around + 1} around the path = {needed}, but "
            f"finetune.row_length={train.row_length}. Set --config.finetune.row_length to at least {needed}, or "
            f"lower --config.sample.max_tokens or {setting}."
        )

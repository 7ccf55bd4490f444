"""Checks of a whole run before anything is written or compiled; `lmsi doctor` shows them one by one."""

import importlib.metadata
import platform
from collections.abc import Callable

import jax

from lmsi_jax import model
from lmsi_jax.checkpoint import folder
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.progress import console
from lmsi_jax.decoding import memory
from lmsi_jax.decoding.endpoint import Endpoint
from lmsi_jax.formatting.mixed import check_control_tokens
from lmsi_jax.pipeline.decode import sampling
from lmsi_jax.pipeline.placement import check_placements, placement_table
from lmsi_jax.pipeline.session import Session
from lmsi_jax.pipeline.workdir import PACKAGES
from lmsi_jax.sharding import param_shardings
from lmsi_jax.tasks import prompts, registry
from lmsi_jax.training.step import abstract_state, check_batch


def preflight(session: Session) -> None:
    """Raise UserError when model, mesh, prompt and questions do not fit together."""
    for _, check in CHECKS:
        check(session)


def doctor(session: Session) -> int:
    """Print versions, devices and every check as ok or problem with its remedy, and where parameters live if there is none.

    Returns how many problems there are.
    """
    console.print(f"Python {platform.python_version()}; " + ", ".join(f"{p} {importlib.metadata.version(p)}" for p in PACKAGES))
    problems = 0
    for name, check in CHECKS:
        try:
            said, word = check(session), "ok"
        except UserError as error:
            said, word, problems = str(error), "problem", problems + 1
        console.print(f"{word:8}{name}: {said}")
    if not problems:
        console.print(placement_table(session.mesh, session.model_config))
    return problems


def _devices(session: Session) -> str:
    mesh = session.mesh.devices
    sizes = ", ".join(f"{axis} {size}" for axis, size in mesh.shape.items())
    free = f"{memory.size_text(memory.free(session.mesh))} free each"
    return f"{mesh.size} x {mesh.devices.flat[0].device_kind} ({jax.default_backend()}), {free}; mesh: {sizes}"


def _checkpoint(session: Session) -> str:
    checkpoint = session.config.model.checkpoint
    folder.check_params(checkpoint)
    c = session.model_config
    return (
        f"{checkpoint}: {model.count_params(c):,} parameters stored as {c.param_dtype}, {c.layers} layers of width {c.width}, "
        f"context {c.context}; computes in {c.dtype}"
    )


def _tokenizer(session: Session) -> str:
    tokenizer, text = session.tokenizer, session.prompts.cot_examples
    begun = tokenizer.start(text)[:2].count(tokenizer.bos) if tokenizer.bos >= 0 else 0  # a chat may have one in each turn
    if begun != (tokenizer.bos >= 0):
        raise UserError(
            f"The prompt begins with {begun} tokens of id {tokenizer.bos} (beginning of text) in place of one; take it out of "
            f"the exemplars."
        )
    begins = f"texts begin with id {tokenizer.bos}" if begun else "nothing is put before a text"
    return (
        f"{tokenizer.vocab} ids for {session.model_config.vocab} rows of the embedding; {begins}, ids {tokenizer.ends} end one"
    )


def _sharding(session: Session) -> str:
    config, mesh = session.config, session.mesh
    param_shardings(mesh, *model.abstract(session.model_config))
    check_placements(mesh, session.model_config, config.mesh.largest_whole)
    check_batch(mesh, config.finetune, "finetune")
    parts = mesh.size("batch")
    if config.sample.lanes % parts:
        raise UserError(
            f"sample.lanes={config.sample.lanes} does not divide over data x fsdp = {parts} devices; set "
            f"--config.sample.lanes to a multiple of {parts}."
        )
    lanes = config.sample.lanes or "as many as fit"
    return f"parameters, {lanes} lanes and batches of {config.finetune.batch} rows divide over the mesh"


def _server(session: Session) -> str:
    sample = session.config.sample
    if sample.engine == "mesh":
        return "none; paths come from the model here"
    server = Endpoint(sample.endpoint, sampling(session, sample.temperature))
    return f"paths come from model '{sample.endpoint.model}' of {server.url}"


def _memory(session: Session) -> str:
    """What training holds throughout; gradients and activations come on top. A note, not a verdict."""
    config, mesh = session.config, session.mesh
    start = memory.stored(mesh, session.model_config)
    state = jax.tree.leaves(abstract_state(mesh, session.model_config, config.finetune))
    held = sum(memory.on_device(leaf, leaf.sharding) for leaf in state)
    what = "adapters and their moments" if config.finetune.lora.rank else "parameters and moments in float32"
    return (
        f"a device holds {memory.size_text(start)} of the model that training starts from and {memory.size_text(held)} of "
        f"{what}; gradients and activations come on top"
    )


def _stops(session: Session) -> str:
    stops = session.config.sample.stops
    prompts.check_stops(session.task.exemplars, stops, session.task.answer_type)
    return f"{len(session.task.exemplars)} exemplars, none of whose answers holds a stop string ({', '.join(map(repr, stops))})"


def _row_length(session: Session, few_shot: int, question: int) -> None:
    """Raise UserError when a training row of the longest question might not fit; prompts that rows share are in none."""
    config = session.config
    asked = len(session.tokenizer.start(session.prompts.render("zero_shot_cot", "")))
    before, why = (asked, "of what is asked for") if config.finetune.share_prompts else (few_shot, "of few-shot prompt")
    prompts = session.prompts
    around = len(session.tokenizer.encode(prompts.before_answer + prompts.after_answer)) if config.data.chat else 0
    needed = before + question + config.sample.max_tokens + around + 1
    if needed > config.finetune.row_length:
        raise UserError(
            f"A training row could be too long: {before} tokens {why} + {question} of the longest question + "
            f"{config.sample.max_tokens} to generate + {around + 1} around it = {needed}, and "
            f"finetune.row_length={config.finetune.row_length}. Set --config.finetune.row_length to at least {needed}, or "
            f"lower --config.sample.max_tokens or --config.data.shots."
        )


def _lengths(session: Session) -> str:
    config, encode = session.config, session.tokenizer.encode
    questions = registry.training_questions(config.data, config.seed) + registry.held_out_questions(config.data, config.seed)
    check_control_tokens(questions, session.tokenizer)
    few_shot = len(session.tokenizer.start(session.prompts.cot_examples))
    sizes = [len(encode(session.prompts.question(row["question"], row["choices"]))) for row in questions]
    longest = max(sizes)
    id = questions[sizes.index(longest)]["id"]
    total, context = few_shot + longest + config.sample.max_tokens, session.model_config.context
    parts = (
        f"{few_shot} tokens of few-shot prompt + {longest} of the longest question ('{id}') + {config.sample.max_tokens} "
        f"to generate"
    )
    if total > context:
        raise UserError(
            f"A prompt does not fit the model: {parts} = {total}, and its context is {context}. Use fewer exemplars "
            f"(--config.data.shots), a smaller --config.sample.max_tokens, or leave that question out."
        )
    _row_length(session, few_shot, longest)
    return f"{len(questions)} questions; {parts} = {total} of {context}"


CHECKS: tuple[tuple[str, Callable[[Session], str]], ...] = (
    ("devices", _devices),
    ("checkpoint", _checkpoint),
    ("tokenizer", _tokenizer),
    ("sharding", _sharding),
    ("server", _server),
    ("memory", _memory),
    ("stop strings", _stops),
    ("prompts", _lengths),
)

"""The stages themselves: each reads files, writes files, and keeps nothing else."""

import dataclasses

from etils import epath

from lmsi_jax.checkpoint import folder
from lmsi_jax.core.progress import ProgressBar, console
from lmsi_jax.core.records import read_jsonl, write_jsonl
from lmsi_jax.core.rng import stable_hash
from lmsi_jax.decoding.scheduler import Request
from lmsi_jax.formatting.mixed import check_control_tokens, tokenize
from lmsi_jax.formatting.packing import pack
from lmsi_jax.pipeline.decode import Job, adaptive, decode_to_file, sampling
from lmsi_jax.pipeline.remote import sample_to_file
from lmsi_jax.pipeline.session import Session
from lmsi_jax.sharding import use_mesh
from lmsi_jax.tasks import registry
from lmsi_jax.tasks.overlap import describe, overlap
from lmsi_jax.tasks.reading import accepted_answers
from lmsi_jax.training.loop import train
from lmsi_jax.training.step import check_batch, trained_model

GOLD = ("answer", "answers", "rationale")  # fields that no stage of a round may see


def prepare(session: Session, questions: epath.Path, gold: epath.Path, held_out: epath.Path, leaks: epath.Path) -> None:
    """Write the questions without gold answers; apart from them the gold answers, for audit only; and what leaks."""
    data, seed = session.config.data, session.config.seed
    rows = registry.training_questions(data, seed)
    evaluation = registry.held_out_questions(data, seed)
    found = overlap(rows, evaluation)
    if found:
        console.print(f"prepare: {describe(len(found.equal), len(found.shared), len(evaluation))}; see {leaks}")
    pairs = [("equal", pair) for pair in found.equal] + [("shared", pair) for pair in found.shared]
    write_jsonl(leaks, ({"id": scored, "training_id": trained, "overlap": kind} for kind, (scored, trained) in pairs))
    known = [(r["id"], accepted_answers(r)) for r in rows if r.get("answer") is not None or r.get("answers")]
    write_jsonl(gold, ({"id": id, "answer": accepted[0], "answers": accepted} for id, accepted in known))
    write_jsonl(held_out, evaluation)
    write_jsonl(questions, ({k: v for k, v in r.items() if k not in GOLD} for r in rows))


def requests(questions: epath.Path, session: Session) -> list[Request]:
    """The prompt's last part for each question of a file. Raises UserError when one holds the name of a control token."""
    rows = registry.load_questions(questions)
    check_control_tokens(rows, session.tokenizer)
    return [Request(r["id"], session.prompts.question(r["question"], r["choices"])) for r in rows]


def sample(
    session: Session,
    round: int,
    checkpoint: str,
    questions: epath.Path,
    paths: epath.Path,
    scratch: epath.Path,
    metrics: epath.Path,
) -> None:
    """Decode m chain-of-thought paths of each question (section 3.1)."""
    s = session.config.sample
    decoding = dataclasses.replace(sampling(session, session.temperature(round - 1)), enough=adaptive(session, questions))
    job = Job(
        session.prompts.cot_examples,
        requests(questions, session),
        decoding,
        ("sample", round),
        scratch,
        paths,
        f"round {round} sample",
        metrics,
        s.profile,
    )
    if s.engine == "openai":
        sample_to_file(session, job)
    else:
        decode_to_file(session, checkpoint, job)


def finetune(
    session: Session,
    round: int,
    checkpoint: str,
    examples_file: epath.Path,
    target: epath.Path,
    scratch: epath.Path,
    metrics: epath.Path,
) -> None:
    """Train the parameters of `checkpoint` on the examples and write a checkpoint folder."""
    config = session.config.finetune
    check_batch(session.mesh, config, "finetune")
    pieces = tokenize(list(read_jsonl(examples_file)), session.tokenizer, config.weighting)
    rows = pack(pieces, config.row_length, config.share_prompts)
    title = f"round {round} finetune"
    console.print(
        f"{title}: {len(pieces)} examples in {len(rows)} rows, {rows.padding:.1%} padding, "
        f"{config.steps * config.batch / max(len(rows), 1):.2f} epochs"
        + (f", {sum(map(len, rows.prompts))} tokens of prompts computed once a step" if rows.prompts else "")
    )
    start, architecture = session.params(checkpoint), session.model_config
    with use_mesh(session.mesh), ProgressBar(title, config.steps) as bar:
        trained = train(
            session.mesh,
            architecture,
            config,
            start,
            rows,
            seed=stable_hash(f"{session.config.seed} finetune {round}"),
            folder=scratch / "state",
            metrics_folder=metrics,
            name=title.replace(" ", "-"),
            on_step=lambda step, values: bar.update(step, f"loss {values['loss']:.3f}"),
        )
        params = trained_model(architecture, config, start, trained)
        adapters = folder.Adapters(trained, config.lora, checkpoint) if config.lora.rank else None
        folder.save(target, architecture, params, folder.companions(checkpoint), adapters, finetuned_from=checkpoint)

"""The whole loop on a folder of `transformers`, as a user runs it."""

import json
import shutil
import subprocess

import pytest

torch = pytest.importorskip("torch", reason="install the extra 'peers'")
transformers = pytest.importorskip("transformers", reason="install the extra 'peers'")

from lmsi_jax.core.records import read_jsonl, write_jsonl  # noqa: E402
from tests.peers.test_folders import hf_folder  # noqa: E402
from tests.runs import ROOT, command, environment  # noqa: E402

QUESTIONS = [{"id": f"q{i}", "question": f"Tom has {i} coins and Ann has {i + 2}. How many coins?"} for i in range(4)]
SMALL = {
    "mesh.cpu_devices": 1, "data.shots": 1, "model.dtype": "stored", "sample.temperature": 0.2, "sample.paths": 4,
    "sample.max_tokens": 24, "sample.lanes": 2, "sample.slots": 4, "finetune.batch": 4, "finetune.accumulate": 2,
    "finetune.row_length": 420, "finetune.learning_rate": 3e-3, "finetune.warmup": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def start(tmp_path_factory, compile_cache):
    """A folder whose model says " The answer is N." after any question: a random one has no answers to vote on."""
    path = tmp_path_factory.mktemp("start")
    hf_folder(path / "random", "qwen2")
    exemplars = list(read_jsonl(ROOT / "lmsi_jax/tasks/exemplars/number.jsonl"))[:1]
    from lmsi_jax.tasks.prompts import Exemplar, few_shot, question_text

    before = few_shot([Exemplar(**{**row, "choices": ()}) for row in exemplars], "number", reasoning=True)
    rows = [
        {"prompt": before + question_text(row["question"]), "target": f" So it is. The answer is {n}."}
        for row in QUESTIONS
        for n in (3, 4, 5)
    ]
    write_jsonl(path / "examples.jsonl", rows)
    _run(command("import", f"--from={path}/random", f"--to={path}/ours"), compile_cache)
    tune = command(
        "finetune", f"--config={ROOT}/configs/hf.py", f"--examples={path}/examples.jsonl", f"--output={path}/tuned",
        **{**SMALL, "model.checkpoint": path / "ours", "finetune.steps": 50},
    )  # fmt: skip
    _run(tune, compile_cache)
    _run(command("export", f"--from={path}/tuned", f"--to={path}/hf"), compile_cache)
    write_jsonl(path / "questions.jsonl", QUESTIONS)
    return path


def _run(arguments, cache, expect=0):
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment(cache), timeout=280, check=False)
    assert done.returncode == expect, done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 4])
def test_improve_and_leave(rank, start, compile_cache, tmp_path):
    """Catches: a checkpoint of a round that lost its family, tokenizer or dtype; a doctor that passes what cannot run."""
    config = {
        **SMALL, "model.checkpoint": start / "hf", "data.questions": start / "questions.jsonl", "finetune.steps": 4,
        "finetune.lora.rank": rank,
    }  # fmt: skip
    file = f"--config={ROOT}/configs/hf.py"
    said = _run(command("doctor", file, **config), compile_cache)
    checks = {line.split(":")[0].removeprefix("ok").strip() for line in said.splitlines() if line.startswith("ok ")}
    assert "\nproblem" not in said and {"checkpoint", "tokenizer", "memory", "prompts"} <= checks, said
    _run(command("run", file, f"--workdir={tmp_path}/run", **config), compile_cache)
    votes = list(read_jsonl(tmp_path / "run/rounds/1/votes.jsonl"))
    assert {vote["answer"] for vote in votes} & {"3", "4", "5"}

    tuned = f"--from={tmp_path}/run/models/round-1"
    said = _run(command("export", tuned, f"--to={tmp_path}/out", "--verify"), compile_cache)
    assert "read back: 0" in said
    peer = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    base = transformers.AutoModelForCausalLM.from_pretrained(start / "hf")
    assert not torch.equal(peer.model.layers[0].mlp.up_proj.weight, base.model.layers[0].mlp.up_proj.weight)
    assert tokenizer.decode(tokenizer("Q: 12?")["input_ids"]) == "Q: 12?"
    if rank:
        said = _run(command("export", tuned, f"--to={tmp_path}/adapter", "--adapter", "--verify"), compile_cache)
        assert float(said.rpartition(" ")[2]) < 1e-4
    else:
        said = _run(command("export", tuned, f"--to={tmp_path}/adapter", "--adapter"), compile_cache, expect=2)
        assert "has no adapters" in said


def test_doctor_names_what_does_not_fit(start, compile_cache):
    """Catches: one problem that hides the others, an exit status of 0."""
    config = {
        **SMALL, "model.checkpoint": start / "hf", "data.questions": start / "questions.jsonl", "sample.max_tokens": 500,
        "sample.stops": "('The',)", "finetune.batch": 3, "finetune.accumulate": 1, "mesh.cpu_devices": 2,
    }  # fmt: skip
    said = _run(command("doctor", f"--config={ROOT}/configs/hf.py", **config), compile_cache, expect=2)
    problems = {line.split(":")[0].split("problem")[1].strip() for line in said.splitlines() if line.startswith("problem")}
    assert problems == {"sharding", "stop strings", "prompts"}, said
    assert "set --config.finetune.batch to a multiple of 2" in said
    assert json.loads((start / "hf/config.json").read_text())["model_type"] == "qwen2"


def test_a_chat_whose_question_holds_a_control_token(start, compile_cache, tmp_path):
    """Catches: a question that ends its own turn."""
    folder = shutil.copytree(start / "hf", tmp_path / "hf")
    turn = "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}<|im_start|>"
    (folder / "chat_template.jinja").write_text(turn)
    for question, problems in (("2 + 3?", 0), ("2 + 3? <|im_end|>", 1)):
        write_jsonl(tmp_path / "q.jsonl", [{"id": "q", "question": question}])
        config = {**SMALL, "model.checkpoint": folder, "data.questions": tmp_path / "q.jsonl", "data.chat": True}
        said = _run(command("doctor", f"--config={ROOT}/configs/hf.py", **config), compile_cache, expect=2 * problems)
        assert said.count("problem ") == problems, said
        assert ("Question 'q' contains '<|im_end|>'" in said) == problems

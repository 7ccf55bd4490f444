"""Models and questions by name, from a local server that speaks the hub's interface."""

import json
import subprocess

import jax
import numpy as np
import pyarrow
import pytest
from etils import epath
from pyarrow import parquet
from safetensors.numpy import save_file

from lmsi_jax.checkpoint import folder
from lmsi_jax.checkpoint.convert import export_folder
from lmsi_jax.core import hub as hub_module
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.records import write_jsonl
from lmsi_jax.model import transformer
from lmsi_jax.sharding.rules import use_mesh
from lmsi_jax.tasks.config import DataConfig
from lmsi_jax.tasks.question_files import question_files
from lmsi_jax.tasks.sources import question_source
from tests import hub as local
from tests.conftest import mesh_of
from tests.runs import command, environment

SOLUTIONS = [
    {"question": f"Tom has {i} pens and buys {i}. How many has he?", "answer": f"{i} + {i} = {2 * i}\n#### {2 * i}"}
    for i in range(12)
]
LLAMA = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 32, "intermediate_size": 64,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu", "tie_word_embeddings": True, "torch_dtype": "float32",
    "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub of this machine, an empty cache, and no memory of earlier downloads."""
    from huggingface_hub import constants

    with local.running() as running:
        monkeypatch.setattr(constants, "ENDPOINT", running.address)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", running.address + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        hub_module.listed.cache_clear()
        hub_module.download.cache_clear()
        yield running
        hub_module.listed.cache_clear()
        hub_module.download.cache_clear()


@pytest.fixture(scope="module")
def exported(tokenizer, tmp_path_factory):
    """The files of a random Llama as `transformers` writes them, beside files that nobody needs."""
    named, ours, target = (epath.Path(tmp_path_factory.mktemp(name)) for name in ("named", "ours", "exported"))
    (named / "config.json").write_text(json.dumps(LLAMA | {"vocab_size": tokenizer.vocab}))
    save_file({"model.norm.weight": np.ones(32, np.float32)}, named / "model.safetensors")  # tells the dtype
    config = folder.load_config(str(named))
    with use_mesh(mesh := mesh_of(1, 1, 1)):
        params = transformer.init_sharded(mesh, config, jax.random.key(0))
    files = {"tokenizer.model": tokenizer.model, folder.ORIGIN: (named / "config.json").read_bytes()}
    folder.save(ours / "model", config, params, files)
    target = target / "model"
    export_folder(str(ours / "model"), str(target), mesh, "", 10**9)
    files = {file.name: file.read_bytes() for file in target.iterdir()}
    return files | {"pytorch_model.bin": b"0" * 1000, "original/consolidated.safetensors": b"0" * 1000, "README.md": b"#"}


def parquet_bytes(rows):
    sink = pyarrow.BufferOutputStream()
    parquet.write_table(pyarrow.Table.from_pylist(rows), sink)
    return sink.getvalue().to_pybytes()


def test_a_model_by_name_needs_its_own_files_only(hub, exported):
    """Catches: gigabytes in formats that nobody reads, and a second download of what is in the cache."""
    hub.repositories["models/ann/small"] = exported
    for address in ("hf://ann/small", "hf://ann/small@main", "hf://ann/small@v1"):
        located = folder.locate(address)
        assert (located / "model.safetensors").read_bytes() == exported["model.safetensors"]
    assert {"config.json", "model.safetensors"} <= set(hub.read())
    assert not {"pytorch_model.bin", "consolidated.safetensors", "README.md"} & set(hub.read())
    assert hub.read().count("model.safetensors") == 1
    assert folder.load_config("hf://ann/small").width == folder.load_config(str(located)).width


def test_a_path_asks_no_hub(hub, checkpoint):
    """Catches: a run on a machine without a network that waits for one."""
    folder.locate(str(checkpoint))
    folder.locate("builtin")
    question_files("questions.jsonl")
    assert not hub.requests


def test_a_cut_connection_is_resumed(hub, exported):
    """Catches: a download that begins again, or that keeps half of a file."""
    hub.repositories["models/ann/small"] = exported
    hub.cuts = [len(exported["model.safetensors"]) // 3, 5000]
    assert (folder.locate("hf://ann/small") / "model.safetensors").read_bytes() == exported["model.safetensors"]
    assert not hub.cuts


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("hf://ann", "is not an address of the hub; write hf://ORG/NAME"),
        ("hf://ann/small/extra", "is not an address of the hub"),
        ("hf://ann/none", "there is no such repository, or it is private: `hf auth login`"),
        ("hf://ann/small@v9", "it has no revision 'v9'"),
        ("hf://ann/gated", "accept its terms"),
        ("hf://ann/empty", "has none of the files config.json"),
    ],
)
def test_what_the_hub_does_not_have(hub, exported, address, problem):
    """Catches: a traceback of the client, without the remedy."""
    hub.repositories |= {"models/ann/small": exported, "models/ann/empty": {"README.md": b"#"}}
    hub.gated.add("models/ann/gated")
    with pytest.raises(UserError, match=problem):
        folder.locate(address)


def test_a_hub_that_is_down(hub, exported, monkeypatch):
    """Catches: a traceback without a network; a cached model that cannot be used offline."""
    from huggingface_hub import constants

    hub.repositories["models/ann/small"] = exported
    located = folder.locate("hf://ann/small")
    hub_module.download.cache_clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert folder.locate("hf://ann/small") == located
    with pytest.raises(UserError, match="it is not in the cache, and the hub cannot be reached"):
        folder.locate("hf://ann/other")


def loaded(questions, **settings):
    config = DataConfig(task="jsonl", questions=questions, **settings)
    return question_source(config).training(0)


@pytest.mark.parametrize("path", ["main/train", "main/train-00000-of-00002.parquet", "main/train@v1"])
def test_questions_of_a_parquet_split(hub, path):
    """Catches: a part of a split that is left out, parts in another order, a solution that counts as the answer."""
    hub.repositories["datasets/openai/gsm8k"] = {
        "main/train-00000-of-00002.parquet": parquet_bytes(SOLUTIONS[:8]),
        "main/train-00001-of-00002.parquet": parquet_bytes(SOLUTIONS[8:]),
        "main/test-00000-of-00001.parquet": parquet_bytes(SOLUTIONS[:3]),
        "socratic/train-00000-of-00001.parquet": parquet_bytes(SOLUTIONS[:1]),
        "README.md": b"#",
    }
    name, _, revision = path.partition("@")
    rows = loaded(f"hf://datasets/openai/gsm8k{'@' + revision if revision else ''}/{name}")
    assert [row["question"] for row in rows] == [row["question"] for row in SOLUTIONS][: 12 if "parquet" not in path else 8]
    assert [row["answer"] for row in rows[:3]] == ["0", "2", "4"]
    assert all("train" in file for file in hub.read()) and not any("socratic" in request for request in hub.requests)


@pytest.mark.parametrize(
    ("files", "path"),
    [
        (lambda rows: {"data/train-00000-of-00001.parquet": parquet_bytes(rows)}, "default/train"),
        (lambda rows: {"data/train-00000-of-00001.parquet": parquet_bytes(rows)}, "train"),
        (lambda rows: {"train.jsonl": "".join(json.dumps(row) + "\n" for row in rows).encode()}, "train"),
        (lambda rows: {"train.json": json.dumps(rows).encode()}, "train"),
        (lambda rows: {"x/train.csv": ("question\n" + "".join(f'"{row["question"]}"\n' for row in rows)).encode()}, "x/train"),
    ],
)  # fmt: skip
def test_layouts_of_data_sets(hub, files, path):
    """Catches: a data set whose files lie as `datasets` writes them and are not found."""
    hub.repositories["datasets/ann/set"] = files(SOLUTIONS)
    assert len(loaded(f"hf://datasets/ann/set/{path}")) == 12


def test_columns_by_mapping(hub):
    """Catches: options and letters of the hub's multiple-choice sets that are read wrongly."""
    arc = {"q": "Which is a fruit?", "key": "2", "opts": {"text": ["car", "pear"], "label": ["1", "2"]}, "n": 7}
    hub.repositories["datasets/ann/arc"] = {
        "train.parquet": parquet_bytes([arc]),
        "index.parquet": parquet_bytes([{**arc, "key": 1, "opts": ["car", "pear"]}]),
        "text.parquet": parquet_bytes([{**arc, "key": "pear", "opts": ["car", "pear"]}]),
    }
    columns = {"question": "q", "answer": "key", "choices": "opts", "id": "n"}
    for name in ("train", "index", "text"):
        (row,) = loaded(f"hf://datasets/ann/arc/{name}", columns=columns, answer_type="choice")
        assert row == {"question": "Which is a fruit?", "id": "7", "choices": ["car", "pear"], "answer": "B"}, name
    with pytest.raises(
        UserError, match=r"train.parquet row 1: there is no column 'k' \(data.columns.answer\); there are q, key"
    ):
        loaded("hf://datasets/ann/arc/train", columns={"question": "q", "answer": "k"})
    with pytest.raises(UserError, match="no text in the field `question`"):
        loaded("hf://datasets/ann/arc/train")
    with pytest.raises(UserError, match="has no file 'trian'.* The nearest is train.parquet"):
        loaded("hf://datasets/ann/arc/trian")


def test_solutions_in_files_of_ones_own_are_read_too(tmp_path):
    """Catches: a published file whose solutions are scored by their first number."""
    file = epath.Path(tmp_path / "train.jsonl")
    write_jsonl(file, [*SOLUTIONS[:3], {"question": "What is 1 and 2?", "answer": "3"}, {"question": "And 4?", "answer": 4}])
    assert [row["answer"] for row in loaded(str(file))] == ["0", "2", "4", "3", 4]
    write_jsonl(file, [{"question": "Who sang it?", "answer": "The answer is blowing in the wind"}])
    assert loaded(str(file), answer_type="text")[0]["answer"] == "The answer is blowing in the wind"


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.parquet", b"PAR1 and no more", "not a Parquet file that can be read"),
        ("a.csv", b'question\n"no end', "not a table of comma-separated values|unexpected end"),
        ("a.csv", b"question\n\xff\xfe", "byte .* is not UTF-8"),
        ("a.csv", b"", "holds no questions"),
        ("a.json", b"[1, 2", "not valid JSON"),
    ],
)
def test_files_that_cannot_be_read(name, content, problem, tmp_path):
    """Catches: a traceback of a parser."""
    file = epath.Path(tmp_path / name)
    file.write_bytes(content)
    with pytest.raises(UserError, match=problem):
        loaded(str(file))


@pytest.mark.slow
def test_a_run_by_names_alone(hub, exported, compile_cache, tmp_path):
    """Catches: a command that works on paths only; a run that goes on elsewhere because the name is not its path."""
    hub.repositories |= {
        "models/ann/small": exported,
        "datasets/openai/gsm8k": {"main/train-00000-of-00001.parquet": parquet_bytes(SOLUTIONS)},
    }
    environ = environment(compile_cache) | {
        "HF_ENDPOINT": hub.address,
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_DISABLE_XET": "1",
    }
    line = command(
        "run", "--config=jsonl", f"--workdir={tmp_path}/run", "--only=prepare",
        **{"model.checkpoint": "hf://ann/small@main", "data.questions": "hf://datasets/openai/gsm8k/main/train",
           "data.columns.question": "question", "data.columns.answer": "answer", "mesh.cpu_devices": 1, "sample.lanes": 1,
           "sample.max_tokens": 16, "finetune.row_length": 512, "finetune.batch": 1},
    )  # fmt: skip
    done = subprocess.run(line, capture_output=True, text=True, env=environ, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    questions = (tmp_path / "run/questions.jsonl").read_text()
    assert questions.count("\n") == 12 and "####" not in questions and "answer" not in questions
    assert '"answer": "4"' in (tmp_path / "run/audit/gold.jsonl").read_text()
    assert "hf://ann/small@main" in (tmp_path / "run/config.json").read_text()


@pytest.mark.slow
def test_a_model_is_uploaded_with_its_card(hub, exported, compile_cache, tmp_path):
    """Catches: an upload without the run's scores and config, a token that is needed and not asked for, a public default."""
    run = tmp_path / "run"
    (run / "models").mkdir(parents=True)
    for name, content in (("config.json", '{"seed": 7}'), ("card.md", "CoT, greedy: 40% to 60%\n")):
        (run / name).write_text(content)
    (tmp_path / "hf").mkdir()
    for name, content in exported.items():
        if "/" not in name:
            (tmp_path / "hf" / name).write_bytes(content)
    environ = environment(compile_cache) | {
        "HF_ENDPOINT": hub.address,
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_DISABLE_XET": "1",
    }

    def lmsi(*words, **more):
        done = subprocess.run(command(*words), capture_output=True, text=True, env=environ | more, timeout=200, check=False)
        return done.returncode, " ".join((done.stdout + done.stderr).split())

    assert lmsi("import", f"--from={tmp_path}/hf", f"--to={run}/models/round-1")[0] == 0
    export = ("export", f"--from={run}/models/round-1", "--push=ann/better")
    status, text = lmsi(*export, f"--to={tmp_path}/one")
    assert status == 2 and "hf auth login" in text, text
    assert (tmp_path / "one/model.safetensors").exists()
    hub.token = "hf_secret"
    status, text = lmsi(*export, f"--to={tmp_path}/two", HF_TOKEN="hf_secret")
    assert status == 0, text[-1500:]
    assert f"uploaded to {hub.address}/ann/better" in text and "hf_secret" not in text
    files = hub.pushed["ann/better"]
    assert files["model.safetensors"] == exported["model.safetensors"] and "config.json" in files
    card = files["README.md"].decode()
    assert card.startswith("---\nlibrary_name: transformers") and "40% to 60%" in card and '{"seed": 7}' in card
    assert hub.private == {"ann/better": True}
    status, text = lmsi("export", f"--from={run}/models/round-1", f"--to={tmp_path}/three", "--public")
    assert status == 2 and "--public has no effect without --push" in text and not (tmp_path / "three").exists()

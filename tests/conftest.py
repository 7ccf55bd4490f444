"""Eight CPU devices, strict ranks, and shapes checked at every call of the package."""

import atexit
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

os.environ.setdefault("NPROC", "64")  # threads for the collectives of eight devices, see cli/main.py
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Tests compile far longer than they compute. The CPU's other code generator takes a fifth of the time without optimisations.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_use_fusion_emitters=false".strip()

import jax

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
if "LMSI_TESTS_COMPILED" not in os.environ:  # what one test compiled another need not, whichever process runs it
    os.environ["LMSI_TESTS_COMPILED"] = tempfile.mkdtemp(prefix="lmsi-compiled-")
    atexit.register(shutil.rmtree, os.environ["LMSI_TESTS_COMPILED"], ignore_errors=True)
COMPILED = os.environ["LMSI_TESTS_COMPILED"]
jax.config.update("jax_compilation_cache_dir", COMPILED)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)

from jaxtyping import install_import_hook

SHAPED = (
    "model",
    "training",
    "decoding",
    "rl",
    "stages.rollouts",
    "stages.prefer",
    "core.metrics",
    "core.rng",
    "benchmarks.lengths",
)
install_import_hook([f"lmsi_jax.{name}" for name in SHAPED], "beartype.beartype")

import pytest
from filelock import FileLock

from lmsi_jax import tokenizers
from lmsi_jax.checkpoint import folder
from lmsi_jax.model import transformer
from lmsi_jax.model.config import ModelConfig
from lmsi_jax.sharding.config import MeshConfig
from lmsi_jax.sharding.mesh import Mesh, make_mesh
from lmsi_jax.sharding.rules import param_shardings, use_mesh
from lmsi_jax.tasks.config import CorpusConfig
from lmsi_jax.tasks.word_corpus import documents
from tests import object_store
from tests.runs import environment, run_workdir

MESHES = [(1, 1, 1), (8, 1, 1), (1, 8, 1), (2, 2, 2)]


forward = jax.jit(transformer.forward, static_argnums=0)  # compiled once for each shape, not operation by operation


def initial(config: ModelConfig, seed: int = 0):
    """Random parameters."""
    return jax.jit(lambda key: transformer.init(config, key))(jax.random.key(seed))


def mesh_of(data: int, fsdp: int, tensor: int) -> Mesh:
    return make_mesh(MeshConfig(data, fsdp, tensor), jax.devices()[: data * fsdp * tensor])


@pytest.fixture(scope="session")
def tokenizer():
    """A tokenizer of 400 pieces, trained on generated problems."""
    texts = documents(CorpusConfig(documents=300), seed=7)
    return tokenizers.train((line for text in texts for line in text.split("\n")), vocab=400)


@pytest.fixture(scope="session")
def model_config():
    """Small, with every kind of axis: grouped heads, an untied-size vocabulary, two layers."""
    return ModelConfig(vocab=400, width=32, layers=2, heads=4, kv_heads=2, head_width=8, mlp=64, context=512)


@pytest.fixture(scope="session")
def params(model_config):
    """Random parameters on one device."""
    with use_mesh(mesh_of(1, 1, 1)):
        return initial(model_config, 3)


def place(mesh: Mesh, model_config: ModelConfig, params):
    """The same parameters on a mesh."""
    return jax.device_put(params, param_shardings(mesh, *transformer.abstract(model_config)))


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory, model_config, tokenizer, params):
    """A checkpoint folder of the random model."""
    path = tmp_path_factory.mktemp("checkpoint") / "model"
    folder.save(path, model_config, params, {"tokenizer.model": tokenizer.model})
    return path


@pytest.fixture(scope="session")
def compile_cache():
    """For processes that tests start."""
    return Path(COMPILED)


@pytest.fixture(scope="session")
def finished(tmp_path_factory, compile_cache):
    """An uninterrupted run and what it printed. The processes that run tests share the work, and have a copy each."""
    copy, shared = tmp_path_factory.mktemp("finished") / "run", Path(COMPILED) / "finished"
    with FileLock(f"{shared}.lock"):
        if not (shared / "output").exists():
            arguments, environ = run_workdir(shared / "run"), environment(compile_cache)
            done = subprocess.run(arguments, capture_output=True, text=True, env=environ, timeout=280, check=False)
            assert done.returncode == 0, done.stderr
            (shared / "output").write_text(done.stdout + done.stderr)
    return shutil.copytree(shared / "run", copy), (shared / "output").read_text()


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    """A local Google Cloud Storage."""
    with object_store.running(tmp_path_factory.mktemp("store")) as running:
        yield running


@pytest.fixture
def bucket(store, request, monkeypatch):
    """The gs:// path of an empty bucket in the local store, for this process and those that it starts."""
    for name, value in store.environment.items():
        monkeypatch.setenv(name, value)
    name = re.sub("[^a-z0-9]+", "-", request.node.name.lower())[:60].strip("-")
    store.make_bucket(name)
    before = store.unknown_requests()
    yield f"gs://{name}"
    assert store.unknown_requests() == before

"""Folders in and out: bit for bit, in files of several dtypes and sizes, and with clear errors when one is broken."""

import json
import os
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
from etils import epath

torch = pytest.importorskip("torch", reason="install the extra 'peers'")
transformers = pytest.importorskip("transformers", reason="install the extra 'peers'")

from lmsi_jax.checkpoint import convert, families, folder, huggingface  # noqa: E402
from lmsi_jax.core.errors import UserError  # noqa: E402
from lmsi_jax.model import transformer  # noqa: E402
from tests.conftest import mesh_of  # noqa: E402
from tests.peers import models  # noqa: E402
from tests.tokenizers import made  # noqa: E402

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def hf_folder(path, name="qwen2", dtype=torch.float32, kind="qwen", **how):
    """A folder as a user has it: tensors, config, generation config and tokenizer."""
    config = models.FAMILIES[name]
    config.vocab_size = 336  # the tokenizer's and some spare rows
    try:
        peer = models.save(name, path, dtype, **how)
    finally:
        config.vocab_size = models.VOCAB
    made.write(kind, path)
    return peer


def tensors(path):
    """Every tensor of a folder, as raw bytes."""
    found = {}
    for name in (read := huggingface.Tensors(epath.Path(path))):
        shape, kind = read.headers[name]
        found[name] = (shape, kind, read.read(name, tuple(slice(None) for _ in shape)).tobytes())
    return found


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["qwen2", "gemma3", "llama2", "mixtral", "qwen2-moe", "qwen3-moe"])
def test_import_then_export_is_bit_identical(name, dtype, tmp_path):
    """Catches: a rounding on the way, a tensor left out, a tokenizer file that is not carried along."""
    hf_folder(tmp_path / "hf", name, DTYPES[dtype])
    mesh = mesh_of(1, 1, 1)
    convert.import_folder(str(tmp_path / "hf"), str(tmp_path / "ours"), mesh)
    convert.export_folder(str(tmp_path / "ours"), str(tmp_path / "out"), mesh, "", 10**9)
    assert {p.name for p in (tmp_path / "out").iterdir()} == {p.name for p in (tmp_path / "hf").iterdir()}
    for file in (tmp_path / "hf").iterdir():
        if file.name == "config.json":
            assert json.loads(file.read_text()) == json.loads((tmp_path / "out" / file.name).read_text())
        else:
            assert file.read_bytes() == (tmp_path / "out" / file.name).read_bytes(), file.name


def test_files_of_bounded_size(tmp_path):
    """Catches: an index that does not match its shards, in either direction."""
    peer = hf_folder(tmp_path / "hf", max_shard_size="60KB")
    assert len(list((tmp_path / "hf").glob("*.safetensors"))) > 2
    mesh = mesh_of(1, 8, 1)
    convert.export_folder(str(tmp_path / "hf"), str(tmp_path / "out"), mesh, "", 100_000)
    assert len(list((tmp_path / "out").glob("*.safetensors"))) > 2
    assert tensors(tmp_path / "out") == tensors(tmp_path / "hf")
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    for (name, a), (_, b) in zip(peer.named_parameters(), again.named_parameters(), strict=True):
        assert torch.equal(a, b), name
    assert convert.largest_difference(str(tmp_path / "hf"), str(tmp_path / "out"), mesh, adapters=False) == 0


def test_export_in_another_dtype(tmp_path):
    """Catches: a --dtype that changes the label and not the tensors."""
    hf_folder(tmp_path / "hf")
    convert.export_folder(str(tmp_path / "hf"), str(tmp_path / "out"), mesh_of(1, 1, 1), "bfloat16", 10**9)
    assert {kind for _, kind, _ in tensors(tmp_path / "out").values()} == {"BF16"}
    assert transformers.AutoConfig.from_pretrained(tmp_path / "out").dtype == torch.bfloat16


def test_the_older_spelling_of_config_json(tmp_path):
    """Catches: rope_theta, rope_scaling, torch_dtype and window patterns of files written before `rope_parameters`."""
    for name, old in {
        "llama3": {"rope_theta": 5e5, "rope_scaling": {k: v for k, v in models.LLAMA3.items() if k != "rope_theta"}},
        "gemma3": {
            "rope_theta": 1e6, "rope_local_base_freq": 1e4, "rope_scaling": {"rope_type": "linear", "factor": 8.0},
            "sliding_window_pattern": 6,
        },
    }.items():  # fmt: skip
        path = tmp_path / name
        models.save(name, path)
        new = huggingface.read_config(epath.Path(path))
        config = json.loads((path / "config.json").read_text())
        for key in ("rope_parameters", "layer_types", "dtype", "_sliding_window_pattern"):
            config.pop(key, None)
        (path / "config.json").write_text(json.dumps({**config, **old, "torch_dtype": "float32"}))
        assert huggingface.read_config(epath.Path(path)) == new


@pytest.mark.parametrize("name", ["mistral", "qwen2-window", "gemma2", "gemma3"])
def test_a_window_that_config_json_does_not_name(name):
    """Catches: full attention where `transformers` takes its class's own window; a window where null says there is none."""
    described = models.FAMILIES[name].to_dict()
    assert set(families.model_config({**described, "sliding_window": None}, "float32").windows) <= {0}
    del described["sliding_window"]
    default = type(models.FAMILIES[name])(use_sliding_window=True).sliding_window
    assert max(families.model_config(described, "float32").windows) == default == 4096


def _truncate(path):
    file = path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])


def _edit_config(**changes):
    def edit(path):
        config = json.loads((path / "config.json").read_text())
        (path / "config.json").write_text(json.dumps({**config, **changes}))

    return edit


def _retype(path):
    from safetensors.numpy import load_file, save_file

    stored = load_file(path / "model.safetensors")
    name = "model.norm.weight"
    save_file({**stored, name: stored[name].astype(np.int8)}, path / "model.safetensors")


BROKEN = {
    "corrupted": (_truncate, "model.safetensors is not a complete safetensors file"),
    "absent": (lambda path: (path / "model.safetensors").unlink(), "neither model.safetensors nor"),
    "architecture": (_edit_config(model_type="mamba", architectures=["MambaForCausalLM"]), "model_type 'mamba'"),
    "integers": (_retype, r"stored as F32 .*, I8 .model.norm.weight."),
    "fewer layers": (_edit_config(num_hidden_layers=3), "12 tensor.s. that this architecture does not use"),
    "more layers": (_edit_config(num_hidden_layers=5), "lacks 12 of .* model.layers.4"),
    "other width": (_edit_config(intermediate_size=90), "mlp_|mlp.gate_proj.weight: .88, 48. in the file, .90, 48. by"),
    "rope": (_edit_config(rope_parameters={"rope_type": "yarn", "factor": 4.0}), "RoPE scaling of type 'yarn'"),
    "no factor": (_edit_config(rope_parameters={"rope_type": "linear"}), "config.json has no 'factor'"),
    "config": (lambda path: (path / "config.json").write_text("{"), "not valid JSON"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_folders(name, tmp_path):
    """Catches: a stack trace, or a model that loads and is wrong; a half-written target."""
    spoil, said = BROKEN[name]
    hf_folder(tmp_path / "hf")
    spoil(tmp_path / "hf")
    with pytest.raises(UserError, match=said):
        convert.import_folder(str(tmp_path / "hf"), str(tmp_path / "ours"), mesh_of(1, 1, 1))
    assert not (tmp_path / "ours").exists()


def test_broken_shards(tmp_path):
    """Catches: a shard that was not copied, an index that was cut off or that names tensors of another model."""
    hf_folder(tmp_path / "hf", max_shard_size="60KB")
    index = json.loads((tmp_path / "hf" / huggingface.INDEX).read_text())
    first = sorted(set(index["weight_map"].values()))[0]
    for name, spoil, said in (
        ("gone", lambda path: (path / first).unlink(), f"lacks 1 of 7 shards .*{first}"),
        ("cut", lambda path: (path / huggingface.INDEX).write_text('{"weight_map": {'), "not valid JSON"),
        ("empty", lambda path: (path / huggingface.INDEX).write_text("{}"), "has no `weight_map`"),
        ("shard", lambda path: (path / first).write_bytes(b"no"), f"{first} is not a complete safetensors file"),
    ):
        path = shutil.copytree(tmp_path / "hf", tmp_path / name)
        spoil(path)
        with pytest.raises(UserError, match=said):
            folder.load_params(str(path), mesh_of(1, 1, 1))
    extra = {**index["weight_map"], "model.extra.weight": first}
    (tmp_path / "hf" / huggingface.INDEX).write_text(json.dumps({"weight_map": extra}))
    with pytest.raises(UserError, match="do not contain .model.extra.weight"):
        folder.load_params(str(tmp_path / "hf"), mesh_of(1, 1, 1))


def test_a_tokenizer_of_another_model(tmp_path):
    """Catches: ids beyond the embedding, found after everything was loaded."""
    models.save("qwen2", tmp_path / "hf")  # 134 rows
    made.write("qwen", tmp_path / "hf")  # more pieces
    with pytest.raises(UserError, match=r"\d+ pieces and the model's embedding 134 rows"):
        convert.import_folder(str(tmp_path / "hf"), str(tmp_path / "ours"), mesh_of(1, 1, 1))


def test_constants_of_old_files(tmp_path):
    """Catches: a folder refused for its float32 rotary frequencies beside float16 weights."""
    from safetensors.numpy import load_file, save_file

    hf_folder(tmp_path / "hf", "llama2", torch.float16)
    file = tmp_path / "hf" / "model.safetensors"
    constant = {"model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(4, np.float32)}
    save_file({**load_file(file), **constant}, file)
    assert folder.load_config(str(tmp_path / "hf")).param_dtype == "float16"
    folder.check_params(str(tmp_path / "hf"))


def test_an_imported_model_ends_its_texts_as_before(tmp_path):
    """Catches: ends of text that only config.json names, lost on import; an import over something that is there."""
    hf_folder(tmp_path / "hf")
    (tmp_path / "hf" / "generation_config.json").unlink()
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    (tmp_path / "hf" / "config.json").write_text(json.dumps({**config, "eos_token_id": [0, 7]}))
    convert.import_folder(str(tmp_path / "hf"), str(tmp_path / "ours"), mesh_of(1, 1, 1))
    assert folder.load_tokenizer(str(tmp_path / "hf")).ends == folder.load_tokenizer(str(tmp_path / "ours")).ends
    with pytest.raises(UserError, match="nothing was overwritten"):
        convert.import_folder(str(tmp_path / "hf"), str(tmp_path / "ours"), mesh_of(1, 1, 1))


def test_export_leaves_nothing_half_written(tmp_path, monkeypatch):
    """Catches: a folder that looks whole after a crash, and a target that is overwritten."""
    hf_folder(tmp_path / "hf")
    mesh = mesh_of(1, 1, 1)

    def crash(*args, **kwargs):
        raise OSError("no space left")

    with monkeypatch.context() as patched:
        patched.setattr(huggingface, "save_file", crash)
        with pytest.raises(OSError, match="no space"):
            convert.export_folder(str(tmp_path / "hf"), str(tmp_path / "out"), mesh, "", 10**9)
    assert not (tmp_path / "out").exists()
    convert.export_folder(str(tmp_path / "hf"), str(tmp_path / "out"), mesh, "", 10**9)
    with pytest.raises(UserError, match="nothing was overwritten"):
        convert.export_folder(str(tmp_path / "hf"), str(tmp_path / "out"), mesh, "", 10**9)


MEASURE = """
import sys, threading, time
import jax
from etils import epath
from lmsi_jax.checkpoint import huggingface
from lmsi_jax.sharding.config import MeshConfig
from lmsi_jax.sharding.mesh import make_mesh

def resident():
    lines = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return int(lines["RssAnon"].split()[0]) * 1024

folder = epath.Path(sys.argv[1])
jax.config.update("jax_num_cpu_devices", int(sys.argv[2]))
mesh, config = make_mesh(MeshConfig(data=1, fsdp=-1)), huggingface.read_config(folder)
jax.block_until_ready(jax.numpy.zeros(8) + 1)
before, peak, done = resident(), 0, False

def watch():
    global peak
    while not done:
        peak = max(peak, resident())
        time.sleep(0.0005)

thread = threading.Thread(target=watch)
thread.start()
params = huggingface.load_params(folder, config, mesh)
done = True
thread.join()
held = sum(shard.data.nbytes for leaf in jax.tree.leaves(params) for shard in leaf.addressable_shards)
print(peak - before - held)
"""


@pytest.mark.parametrize("devices", [1, 8])
def test_memory_of_loading(devices, tmp_path):
    """Catches: a whole file, or several tensors, on the host at once. (On a CPU the parameters themselves are there too.)"""
    sizes = {**models.SIZES, "vocab_size": 16_384, "hidden_size": 768, "intermediate_size": 24_576, "num_attention_heads": 8}
    peer = transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes))
    peer.save_pretrained(tmp_path)
    largest = 4 * 768 * 24_576  # of those that are stored the other way round
    assert 4 * sum(weight.numel() for weight in peer.parameters()) > 8 * largest
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "MALLOC_MMAP_THRESHOLD_": "65536"}  # what is freed goes back
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path), str(devices)],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    assert int(done.stdout) < 1.3 * largest + 20e6, f"{int(done.stdout) / largest:.2f} x the largest"


def test_abstract_parameters_cost_nothing():
    """Catches: shapes of a large model that allocate it."""
    from lmsi_jax.model.presets import preset

    leaves = jax.tree.leaves(transformer.abstract(preset("palm-540b"))[0])
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in leaves)

"""Exported adapters do in `peft` what they do here."""

import json

import jax
import numpy as np
import pytest
from etils import epath
from flax import traverse_util

torch = pytest.importorskip("torch", reason="install the extra 'peers'")
peft = pytest.importorskip("peft", reason="install the extra 'peers'")

from lmsi_jax.checkpoint import convert, folder  # noqa: E402
from lmsi_jax.core.errors import UserError  # noqa: E402
from lmsi_jax.model import lora, transformer  # noqa: E402
from lmsi_jax.model.config import LoraConfig  # noqa: E402
from lmsi_jax.sharding.rules import use_mesh  # noqa: E402
from tests.conftest import mesh_of  # noqa: E402
from tests.peers.test_folders import hf_folder  # noqa: E402
from tests.peers.test_parity import TOLERANCE, ours  # noqa: E402


@pytest.mark.parametrize("name", ["qwen2", "gemma2"])
def test_adapters_alone_and_merged(name, tmp_path):
    """Catches: factors transposed or swapped, alpha without the rank, modules named otherwise than in the model."""
    peer = hf_folder(tmp_path / "hf", name)
    base, config, mesh = str(tmp_path / "hf"), LoraConfig(rank=4, alpha=6.0), mesh_of(1, 1, 1)
    architecture = folder.load_config(base)
    shapes, _ = lora.abstract(transformer.abstract(architecture)[0], transformer.specs(architecture), config)
    rng = np.random.default_rng(0)
    flat = traverse_util.flatten_dict(shapes, sep="/")
    made = {path: rng.normal(size=leaf.shape).astype(np.float32) * 0.2 for path, leaf in flat.items()}
    adapters = jax.tree.map(jax.numpy.asarray, traverse_util.unflatten_dict(made, sep="/"))
    with use_mesh(mesh):
        merged = lora.merge(folder.load_params(base, mesh), adapters, config)
    tuned = str(tmp_path / "tuned")
    folder.save(tuned, architecture, merged, folder.companions(base), folder.Adapters(adapters, config, base))

    convert.export_adapters(tuned, str(tmp_path / "adapter"))
    convert.export_folder(tuned, str(tmp_path / "merged"), mesh, "", 10**9)
    assert convert.largest_difference(tuned, str(tmp_path / "adapter"), mesh, adapters=True) < TOLERANCE
    ids = rng.integers(3, 300, (2, 20)).astype(np.int32)
    expected = ours(epath.Path(tmp_path / "merged"), ids)
    with torch.no_grad():
        plain = peer(torch.tensor(ids)).logits.numpy()
        adapted = peft.PeftModel.from_pretrained(peer, tmp_path / "adapter")(torch.tensor(ids)).logits.numpy()
    np.testing.assert_allclose(adapted, expected, atol=TOLERANCE, rtol=0)
    assert np.abs(adapted - plain).max() > 0.1
    assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["base_model_name_or_path"] == base


def test_a_full_fine_tune_has_no_adapters(tmp_path):
    """Catches: an adapter folder of zeros."""
    hf_folder(tmp_path / "hf")
    convert.import_folder(str(tmp_path / "hf"), str(tmp_path / "ours"), mesh_of(1, 1, 1))
    with pytest.raises(UserError, match="has no adapters: it was not fine-tuned with"):
        convert.export_adapters(str(tmp_path / "ours"), str(tmp_path / "adapter"))

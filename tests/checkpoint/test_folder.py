import jax
import numpy as np
import pytest

from lmsi_jax.checkpoint import folder
from lmsi_jax.core.errors import UserError
from lmsi_jax.sharding.rules import use_mesh
from tests.conftest import MESHES, mesh_of


@pytest.mark.parametrize("shape", MESHES)
def test_round_trip_onto_any_mesh(shape, checkpoint, model_config, params):
    """Catches: a checkpoint that can be read only on the devices that wrote it."""
    mesh = mesh_of(*shape)
    with use_mesh(mesh):
        loaded = folder.load_params(str(checkpoint), mesh)
    assert folder.load_config(str(checkpoint)) == model_config
    for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(loaded), strict=True):
        np.testing.assert_array_equal(a, b)
        assert b.sharding.mesh.shape == mesh.devices.shape


def test_saving_never_overwrites_what_is_no_checkpoint(tmp_path, model_config, tokenizer, params):
    """Catches: a mistyped --output that deletes somebody's folder."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("dear")
    with pytest.raises(
        UserError, match="is not a checkpoint folder that lmsi wrote .it has thesis.txt.; nothing was overwritten"
    ):
        folder.save(tmp_path / "mine", model_config, params, {"tokenizer.model": tokenizer.model})
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "dear"
    folder.save(tmp_path / "model", model_config, params, {"tokenizer.model": tokenizer.model})
    folder.save(tmp_path / "model", model_config, params, {"tokenizer.model": tokenizer.model})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine", "model"]


def test_tokenizer_larger_than_the_embedding(checkpoint, tmp_path):
    """Catches: ids that look up rows of the embedding that are not there."""
    import json
    import shutil

    copy = shutil.copytree(checkpoint, tmp_path / "model")
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "vocab": 300}))
    with pytest.raises(UserError, match="has 400 pieces and the model's embedding 300 rows"):
        folder.load_tokenizer(str(copy))


def test_what_is_missing_is_named(tmp_path):
    """Catches: a stack trace from Orbax for a wrong path."""
    with pytest.raises(UserError, match="has no config.json, params"):
        folder.locate(str(tmp_path))

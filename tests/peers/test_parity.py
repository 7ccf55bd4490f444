"""Imported models compute what `transformers` computes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

torch = pytest.importorskip("torch", reason="install the extra 'peers'")
pytest.importorskip("transformers", reason="install the extra 'peers'")

from lmsi_jax.checkpoint import huggingface  # noqa: E402
from lmsi_jax.model import transformer  # noqa: E402
from lmsi_jax.sharding.config import MeshConfig  # noqa: E402
from lmsi_jax.sharding.mesh import make_mesh  # noqa: E402
from lmsi_jax.sharding.rules import use_mesh  # noqa: E402
from tests.conftest import mesh_of  # noqa: E402
from tests.peers import models  # noqa: E402

TOLERANCE = 1e-4  # absolute, of float32 logits
LENGTH = 40  # several windows


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Each family's folder and the model that wrote it; made when asked for."""
    made = {}

    def get(name):
        if name not in made:
            folder = tmp_path_factory.mktemp("peers") / name
            made[name] = (epath.Path(folder), models.save(name, folder))
        return made[name]

    return get


def tokens(rows=3, length=LENGTH):
    return np.random.default_rng(0).integers(3, models.VOCAB, (rows, length)).astype(np.int32)


def ours(folder, ids, positions=None, seen=None, mesh=None):
    """Logits of the imported model; `seen` (n, t) leaves padding out."""
    mesh = mesh or mesh_of(1, 1, 1)
    config = huggingface.read_config(folder)
    n, t = ids.shape
    positions = np.broadcast_to(np.arange(t, dtype=np.int32), (n, t)) if positions is None else positions
    mask = np.broadcast_to(np.tril(np.ones((t, t), bool)), (n, t, t))
    mask = mask & (seen[:, None, :] | np.eye(t, dtype=bool)) if seen is not None else mask
    with use_mesh(mesh):
        params = huggingface.load_params(folder, config, mesh)
        run = jax.jit(lambda p, i, at, m: transformer.forward(config, p, i, at, m)[0])
        return np.asarray(run(params, jnp.asarray(ids), jnp.asarray(positions), jnp.asarray(mask)))


@pytest.mark.parametrize("name", models.FAMILIES)
def test_logits(name, folders):
    """Catches: a wrong permutation, norm, scale, soft-cap, bias, activation, rotary base or window."""
    folder, peer = folders(name)
    ids = tokens()
    with torch.no_grad():
        expected = peer(torch.tensor(ids)).logits.numpy()
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(ours(folder, ids), expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("name", models.FAMILIES)
def test_logits_of_padded_rows(name, folders):
    """Catches: positions that count padding, or padding that is looked at."""
    folder, peer = folders(name)
    ids, seen = tokens(), np.ones((3, LENGTH), bool)
    seen[1, :9], seen[2, :25] = False, False  # padded on the left, as for generation
    positions = np.maximum(np.cumsum(seen, axis=1) - 1, 0).astype(np.int32)
    with torch.no_grad():
        mask, at = torch.tensor(seen.astype(np.int64)), torch.tensor(positions.astype(np.int64))
        expected = peer(torch.tensor(ids), attention_mask=mask, position_ids=at).logits.numpy()
    got = ours(folder, ids, positions, seen)
    np.testing.assert_allclose(got[seen], expected[seen], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("shape", [(1, 8, 1), (2, 2, 2)])
@pytest.mark.parametrize("name", models.FAMILIES)
def test_logits_on_a_mesh(name, shape, folders):
    """Catches: a shard that is read from the wrong rows or columns of a file."""
    folder, peer = folders(name)
    ids = tokens(8)
    rules = {"kv_heads": ""} if name == "gemma" else {}  # a single head is held by every device
    mesh = make_mesh(MeshConfig(*shape, rules=rules), jax.devices()[:8])
    with torch.no_grad():
        expected = peer(torch.tensor(ids)).logits.numpy()
    np.testing.assert_allclose(ours(folder, ids, mesh=mesh), expected, atol=TOLERANCE, rtol=0)

"""The decoding engine on imported models: windows, caches on three levels, and the same text as `transformers`."""

import pytest
from etils import epath

torch = pytest.importorskip("torch", reason="install the extra 'peers'")
pytest.importorskip("transformers", reason="install the extra 'peers'")

from lmsi_jax.checkpoint import huggingface  # noqa: E402
from lmsi_jax.core import rng  # noqa: E402
from lmsi_jax.decoding.config import Sampling  # noqa: E402
from lmsi_jax.decoding.engine import Limits  # noqa: E402
from lmsi_jax.decoding.scheduler import Engine, Request  # noqa: E402
from lmsi_jax.sharding.rules import use_mesh  # noqa: E402
from tests.conftest import mesh_of  # noqa: E402
from tests.peers import models  # noqa: E402

NEW = 64


class Letters:
    """A tokenizer of single letters: id 1 begins a text, id 2 ends one."""

    vocab, bos, eos, ends, control_names = models.VOCAB, 1, 2, (2,), ()

    def encode(self, text, *, control=False):
        return [3 + ord(letter) % (models.VOCAB - 3) for letter in text]

    def start(self, text, *, control=False):
        return [self.bos, *self.encode(text)]

    def encode_completion(self, text, prompt):
        return self.encode(text)

    def decode(self, ids):
        return "".join(chr(id) for id in ids)

    @property
    def token_bytes(self):
        return [b"%c" % id for id in range(models.VOCAB)]


FEW_SHOT, QUESTIONS = "Q: one and two?\nA: 3\n\n", ["Q: four?\nA:", "Q: how many windows back is this?\nA:"]


@pytest.mark.parametrize("name", models.FAMILIES)
def test_greedy_text_and_log_probabilities(name, tmp_path):
    """Catches: windows or positions that count otherwise over the cached levels than in one pass."""
    peer, folder = models.save(name, tmp_path / name), epath.Path(tmp_path / name)
    config, mesh = huggingface.read_config(folder), mesh_of(1, 1, 1)
    sampling = Sampling(paths=1, temperature=0.0, max_tokens=NEW, stops=())
    with use_mesh(mesh):
        params = huggingface.load_params(folder, config, mesh)
        engine = Engine(mesh, config, Letters(), Limits(lanes=2, slots=1, paths=1, max_tokens=NEW, question=48))
        prefix, requests = engine.prefill(params, FEW_SHOT), [Request(text, text) for text in QUESTIONS]
        found = engine.sample(params, prefix, requests, sampling, rng.stage_key(0, "test"))
        paths = {path.id: path for paths in found for path in paths}
    for question, path in paths.items():
        prompt = Letters().start(FEW_SHOT + question)
        with torch.no_grad():
            whole = peer.generate(torch.tensor([prompt]), max_new_tokens=NEW, do_sample=False)[0]
            log_probs = peer(whole[None]).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        assert [*prompt, *path.tokens] == whole.tolist()
        expected = log_probs.gather(1, whole[len(prompt) :, None]).sum()
        assert path.logprob == pytest.approx(float(expected), abs=1e-3)

import pytest

from lmsi_jax.core.errors import UserError
from lmsi_jax.model import transformer
from lmsi_jax.model.presets import preset

PUBLISHED = {
    "llama-2-7b": 6_738_415_616, "llama-3.2-1b": 1_235_814_400, "llama-3.1-8b": 8_030_261_248,
    "mistral-7b-v0.1": 7_241_732_096, "qwen2.5-0.5b": 494_032_768, "qwen2.5-1.5b": 1_543_714_304,
    "qwen2.5-7b": 7_615_616_512, "qwen3-0.6b": 596_049_920, "gemma-2b": 2_506_172_416, "gemma-2-2b": 2_614_341_888,
    "gemma-2-9b": 9_241_705_984,
    "gemma-3-1b": 999_885_952,
}  # fmt: skip


@pytest.mark.parametrize(("name", "billions"), [("palm-8b", 8.63), ("palm-62b", 62.50), ("palm-540b", 540.35)])
def test_palm_has_the_published_size(name, billions):
    """Catches: a layer of PaLM that is not as in its paper: a second norm, untied embeddings, a key per head."""
    assert abs(transformer.count_params(preset(name)) / 1e9 - billions) < 0.01


@pytest.mark.parametrize("name", PUBLISHED)
def test_presets_have_the_published_size(name):
    """Catches: a wrong width, head count or tie in the table."""
    assert transformer.count_params(preset(name)) == PUBLISHED[name]


def test_an_unknown_preset_names_the_nearest():
    """Catches: a KeyError."""
    with pytest.raises(UserError, match=r"nearest is 'palm-62b'"):
        preset("palm-63b")

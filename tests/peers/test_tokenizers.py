"""Prompts have the ids that `transformers` gives them."""

import pytest
from etils import epath

transformers = pytest.importorskip("transformers", reason="install the extra 'peers'")

from lmsi_jax import tokenizers  # noqa: E402
from lmsi_jax.formatting.examples import tokenize  # noqa: E402
from lmsi_jax.formatting.prompts import Prompts  # noqa: E402
from lmsi_jax.tasks.prompts import solution, with_choices  # noqa: E402
from tests.tokenizers import made  # noqa: E402
from tests.tokenizers.test_chat import CHATS, TASK, chat_folder  # noqa: E402

TEXT = "Q: Tom has 12 coins, and Ann has 305.\tHow  many?\nA: The answer is 317.\n\n\u6f22\u5b57 \U0001f600"


@pytest.mark.parametrize("kind", made.KINDS)
def test_ids_of_a_whole_text(kind, tmp_path):
    """Catches: a beginning of text or a prefix space that `transformers` would not put there, or the lack of one."""
    made.write(kind, tmp_path)
    peer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizers.load(epath.Path(tmp_path)).start(TEXT) == peer(TEXT)["input_ids"]


@pytest.mark.parametrize("kind", CHATS)
def test_ids_of_a_chat(kind, tmp_path):
    """Catches: turns behind control tokens, or an answer to train on, with other ids than those of `apply_chat_template`."""
    tokenizer, chat, _ = chat_folder(kind, CHATS[kind], tmp_path)
    peer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    prompts, exemplar = Prompts.of(TASK, chat), TASK.exemplars[0]
    messages = [
        {"role": "user", "content": with_choices(exemplar.question, exemplar.choices)},
        {"role": "assistant", "content": solution(exemplar, "choice", reasoning=True)},
        {"role": "user", "content": "How many coins?"},
    ]
    expected = peer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert tokenizer.start(prompts.cot_examples) + tokenizer.encode(prompts.question("How many coins?")) == expected
    row = {"prompt": prompts.render("few_shot_cot", "How many coins?"), "target": prompts.target(" 12 coins.")}
    (piece,) = tokenize([row], tokenizer)
    whole = peer.apply_chat_template([*messages, {"role": "assistant", "content": "12 coins."}], return_dict=False)
    assert piece.tokens == whole[: len(piece.tokens)]

import json

import pytest
from etils import epath

from lmsi_jax.core.errors import UserError
from lmsi_jax.formatting.mixed import Prompts, Solution, examples, tokenize
from lmsi_jax.tasks.prompts import Exemplar
from lmsi_jax.tasks.registry import Task
from lmsi_jax.tokenizers import ChatTemplate, load, load_chat_template
from tests.tokenizers import made

QWEN = (
    "{%- if messages[0].role != 'system' %}\n<|im_start|>system\nBe brief.<|im_end|>\n{% endif %}"
    "{%- for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | trim }}<|im_end|>\n{% endfor %}"
    "{%- if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TASK = Task("t", "choice", (Exemplar("Which is a fruit?", "A pear grows on trees.", "B", ("a car", "a pear")),))


def test_exemplars_become_turns():
    """Catches: exemplars in one user message, "Q:" and "A:" left inside turns, reasoning in the direct ones."""
    prompts = Prompts.of(TASK, ChatTemplate(QWEN))
    question = "Which is a fruit?\nAnswer choices: (A) a car (B) a pear"
    system = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n"
    before = system + question + "<|im_end|>\n<|im_start|>assistant\n{}<|im_end|>\n<|im_start|>user\n"
    after = "<|im_end|>\n<|im_start|>assistant\n"
    assert prompts.render("few_shot_cot", "2 + 3?") == (
        before.format("A pear grows on trees. The answer is (B).") + "2 + 3?" + after
    )
    assert prompts.render("few_shot_direct", "2 + 3?") == before.format("The answer is (B).") + "2 + 3?" + after
    assert prompts.render("zero_shot_direct", "2 + 3?") == system + "2 + 3?" + after
    assert prompts.render("zero_shot_cot", "2 + 3?") == system + "2 + 3?\nLet's think step by step." + after


LLAMA2 = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% else %} {{ m.content }}</s>{% endif %}{% endfor %}"
)
CHATS = {"qwen": QWEN, "llama3": "{{ bos_token }}" + QWEN, "llama2": LLAMA2, "mistral": LLAMA2}


@pytest.mark.parametrize("kind", CHATS)
def test_a_chat_row(kind, tmp_path):
    """Catches: a doubled beginning of text, turns spelled out as text, an answer that ends as texts do and turns do not."""
    made.write(kind, tmp_path)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**settings, "chat_template": CHATS[kind]}))
    tokenizer, chat = load(epath.Path(tmp_path), control=True), load_chat_template(epath.Path(tmp_path))
    prompts, solution = Prompts.of(TASK, chat), Solution(0, " It is y. The answer is (B).", "B")
    row = examples("q", "Which?", ["x", "y"], [solution], "choice", prompts, ["few_shot_cot"])[0]
    (piece,) = tokenize([row], tokenizer)
    assert piece.tokens.count(tokenizer.bos) == (kind != "qwen")
    assert piece.tokens.count(tokenizer.id("<|im_start|>")) == (5 if "l" not in kind or kind == "llama3" else 0)
    assert tokenizer.decode(piece.tokens[piece.target_start :]) == "It is y. The answer is (B)."
    assert tokenizer.name(piece.tokens[-1]) == ("<|im_end|>" if kind in ("qwen", "llama3") else "</s>")
    assert {tokenizer.id(name) for name in ("<|im_end|>", "<|end|>", "</s>")} - {-1} == set(tokenizer.ends)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("{{ messages[0].content.__class__.__mro__ }}", "chat template fails"),
        ("{{ raise_exception('no such role') }}", "no such role"),
        ("{% for m in messages %}", "chat template fails"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "RecursionError"),
        ("{{ 'x' * 10000000000 }}", "MemoryError"),
        ("{% for i in range(90000) %}{% for i in range(90000) %}{% endfor %}{% endfor %}", "more than 1 s of computing"),
        ("{{ 'x' * 20000000 }}", "writes more than"),
        ("hello", "exactly once"),
    ],
)
def test_templates_that_fail_or_reach_out(source, said, monkeypatch):
    """Catches: code of a downloaded template that runs, fills the memory or never ends; its error as a stack trace."""
    monkeypatch.setattr("lmsi_jax.tokenizers.chat.SECONDS", 1)
    with pytest.raises(UserError, match=said):
        ChatTemplate(source).around([("a", "b")])


def test_a_model_without_a_template(tmp_path):
    """Catches: plain prompts used silently where a chat was asked for."""
    with pytest.raises(UserError, match="has no chat template"):
        load_chat_template(epath.Path(tmp_path))

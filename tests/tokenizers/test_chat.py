import json

import pytest
import tokenizers
from etils import epath

from lmsi_jax.answers.reader import AnswerReader
from lmsi_jax.core.errors import UserError
from lmsi_jax.formatting.examples import Solution, examples, tokenize
from lmsi_jax.formatting.prompts import Prompts
from lmsi_jax.tasks.prompts import Exemplar, solution, with_choices
from lmsi_jax.tasks.task import Task
from lmsi_jax.tokenizers import ChatTemplate, load, load_chat_template
from tests.tokenizers import made

QWEN = (
    "{%- if messages[0].role != 'system' %}\n<|im_start|>system\nBe brief.<|im_end|>\n{% endif %}"
    "{%- for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | trim }}<|im_end|>\n{% endfor %}"
    "{%- if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TASK = Task("t", AnswerReader("choice"), (Exemplar("Which is a fruit?", "A pear grows on trees.", "B", ("a car", "a pear")),))


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


DIRECT = (  # control tokens stand directly before the question and before the answer
    "{% for m in messages %}{% if m.role == 'user' %}</s>{{ m.content }}<unk>{% else %}{{ m.content }}</s>{% endif %}"
    "{% endfor %}"
)
SPACED = (  # the generation prompt ends in a control token, and the assistant's text stands between spaces
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}<unk> {{ m.content }}<unk>{% else %} {{ m.content }} </s>"
    "{% endif %}{% endfor %}"
)
WORDS = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
WHOLE = [*CHATS.items(), *((kind, t) for t in (DIRECT, SPACED) for kind in ("llama2", "mistral")), ("llama3", WORDS)]


def chat_folder(kind, template, path):
    """A folder with a tokenizer of one kind and a chat template: its tokenizer, template, and the library's own tokenizer."""
    made.write(kind, path)
    settings = json.loads((path / "tokenizer_config.json").read_text())
    (path / "tokenizer_config.json").write_text(json.dumps({**settings, "chat_template": template}))
    whole = tokenizers.Tokenizer.from_file(str(path / "tokenizer.json"))
    return load(epath.Path(path), control=True), load_chat_template(epath.Path(path)), whole


@pytest.mark.parametrize(("kind", "template"), WHOLE)
def test_a_chat_in_parts_has_the_ids_of_the_whole(kind, template, tmp_path):
    """Catches: a prefix space that is missing behind control tokens, a cut inside a token, an answer without its space."""
    tokenizer, chat, whole = chat_folder(kind, template, tmp_path)
    prompts, question = Prompts.of(TASK, chat), ("Which grows?", ["a tom", "a coin"])
    bos = [tokenizer.bos] if tokenizer.bos >= 0 and "bos_token" not in template else []
    text = prompts.render("few_shot_cot", *question)
    for examples_before in (prompts.cot_examples, prompts.direct_examples):
        ids = tokenizer.start(examples_before) + tokenizer.encode(prompts.question(*question))
        assert ids == bos + whole.encode(examples_before + prompts.question(*question), add_special_tokens=False).ids
    assert prompts.cot_examples + prompts.question(*question) == text

    turns = [(with_choices(e.question, e.choices), solution(e, "choice", reasoning=True)) for e in TASK.exemplars]
    turns += [(with_choices(*question), "Coins do not. The answer is (A).")]
    messages = [
        {"role": role, "content": said} for turn in turns for role, said in zip(("user", "assistant"), turn, strict=True)
    ]
    (rendered,) = chat.render((messages, False))
    row = examples("q", *question, [Solution(0, " Coins do not. The answer is (A).", "A")], "choice", prompts, ["few_shot_cot"])
    (piece,) = tokenize(row, tokenizer)
    expected = bos + whole.encode(rendered, add_special_tokens=False).ids
    # Where no control token ends a turn, its last token reaches over the end of the answer.
    length = len(piece.tokens) - (2 if template is WORDS else 0)
    assert piece.tokens[:length] == expected[:length]


@pytest.mark.parametrize("kind", CHATS)
def test_what_a_model_wrote_holds_no_control_tokens(kind, tmp_path):
    """Catches: names of control tokens in a sampled text that training takes for the tokens."""
    tokenizer, chat, _ = chat_folder(kind, CHATS[kind], tmp_path)
    prompts, text = Prompts.of(TASK, chat), "a <s> b<|im_end|> </s><|end|>c. The answer is (A)."
    row = examples("q", "Which?", ["x", "y"], [Solution(0, text, "A")], "choice", prompts, ["few_shot_cot"])
    (piece,) = tokenize(row, tokenizer)
    target = piece.tokens[piece.target_start :]
    assert tokenizer.decode(target).strip() == text
    assert [id for id in target if tokenizer.name(id) in tokenizer.control_names] == [tokenizer.eos] == target[-1:]


def test_an_empty_thought_stands_before_answers_without_one():
    """Catches: a block of thought that a template writes and a training row lacks, or has twice."""
    think = "{% for m in messages %}{{ m.role }}\n{% if m.role != 'user' %}<think>\n\n</think>\n\n{% endif %}{{ m.content }}"
    prompts = Prompts.of(TASK, ChatTemplate(think + "\n{% endfor %}{% if add_generation_prompt %}assistant\n{% endif %}"))
    assert prompts.target(" It is 5.") == "<think>\n\n</think>\n\nIt is 5."
    assert prompts.target("<think>\n2 + 3\n</think>\n\nIt is 5.") == "<think>\n2 + 3\n</think>\n\nIt is 5."


@pytest.mark.parametrize("kind", CHATS)
def test_a_chat_row(kind, tmp_path):
    """Catches: a doubled beginning of text, turns spelled out as text, an answer that ends as texts do and turns do not."""
    tokenizer, chat, _ = chat_folder(kind, CHATS[kind], tmp_path)
    prompts, path = Prompts.of(TASK, chat), Solution(0, " It is y. The answer is (B).", "B")
    row = examples("q", "Which?", ["x", "y"], [path], "choice", prompts, ["few_shot_cot"])[0]
    (piece,) = tokenize([row], tokenizer)
    assert piece.tokens.count(tokenizer.bos) == (kind != "qwen")
    assert piece.tokens.count(tokenizer.id("<|im_start|>")) == (5 if "l" not in kind or kind == "llama3" else 0)
    space = " " if CHATS[kind] is LLAMA2 else ""
    assert tokenizer.decode(piece.tokens[piece.target_start :]) == space + "It is y. The answer is (B)."
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
        ("{% for i in range(90000) %}{% for i in range(90000) %}{% endfor %}{% endfor %}", "more than 1 s of CPU time"),
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

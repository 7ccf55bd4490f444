"""lm-evaluation-harness and our own evaluation, on one task and one checkpoint."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from lmsi_jax.checkpoint import folder
from lmsi_jax.checkpoint.config import resolve_numerics
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.records import read_jsonl, write_jsonl
from lmsi_jax.core.settings import build
from lmsi_jax.decoding.scheduler import SampledPath
from lmsi_jax.pipeline.run_folder import RunFolder
from lmsi_jax.pipeline.runtime import Runtime
from lmsi_jax.recipes.config import Config
from lmsi_jax.recipes.parts import Parts, load_prompts
from lmsi_jax.sharding.rules import use_mesh
from lmsi_jax.tasks.sources import question_source
from tests.conftest import forward
from tests.peers.test_folders import hf_folder

os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
lm_eval = pytest.importorskip("lm_eval")
SAMPLE = {"max_tokens": 96, "stops": ("\n\n",), "lanes": 8, "slots": 1, "paths": 1}


@pytest.fixture(scope="module")
def harness_model():
    from lmsi_jax.evaluation.harness import HarnessModel

    return HarnessModel(checkpoint="builtin", batch_size=8)


@pytest.fixture(scope="module")
def config():
    data = {"num_questions": 1, "num_eval": 16, "terms": (2, 3)}
    settings = {"data": data, "sample": SAMPLE, "evaluate": {"self_consistency": False}}
    return resolve_numerics(build(Config, settings), jax.default_backend())


@pytest.fixture(scope="module")
def runtime(config, tmp_path_factory):
    return Runtime(config.mesh, epath.Path(tmp_path_factory.mktemp("metrics")), "evaluate")


def instances(*args):
    from lm_eval.api.instance import Instance

    return [Instance("generate_until", {}, pair, i) for i, pair in enumerate(args)]


def test_one_task_both_ways(harness_model, config, runtime, tmp_path):
    """Catches: another prompt, another stop, another answer or another count than our own evaluation has."""
    questions, run = question_source(config.data).held_out(config.seed), RunFolder(epath.Path(tmp_path))
    write_jsonl(run.held_out, questions)
    parts = Parts(config, run, config.model)
    stage = parts.evaluate("base", parts.checkpoint, 0)
    scores = {"cot": stage.outputs["cot"]}
    stage.run(runtime, stage.settings, stage.inputs, scores, run.scratch(stage.name))
    ours = list(read_jsonl(run.scores("base", "cot")))

    prompts = load_prompts(config.data, config.model.checkpoint)
    rows = [{"prompt": prompts.render("few_shot_cot", q["question"]), "answer": q["answer"]} for q in questions]
    write_jsonl(tmp_path / "docs.json", rows)
    task = {
        "task": "word_problems",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(tmp_path / "docs.json")}},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "{{prompt}}",
        "doc_to_target": "{{answer}}",
        "target_delimiter": "",
        "generation_kwargs": {"until": ["\n\n"], "do_sample": False, "max_gen_toks": SAMPLE["max_tokens"]},
        "filter_list": [
            {
                "name": "answer",
                "filter": [{"function": "regex", "regex_pattern": "The answer is (-?[0-9]+)"}, {"function": "take_first"}],
            }
        ],
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
        "metadata": {"version": 1},
    }
    found = lm_eval.simple_evaluate(model=harness_model, tasks=[task], bootstrap_iters=0, log_samples=True)
    samples = sorted(found["samples"]["word_problems"], key=lambda sample: sample["doc_id"])
    assert [s["filtered_resps"][0] for s in samples] == [row["prediction"] or "[invalid]" for row in ours]
    share = sum(row["correct"] for row in ours) / len(ours)
    assert 0 < share < 1, "a task on which both score all or nothing shows nothing"
    assert found["results"]["word_problems"]["exact_match,answer"] == pytest.approx(share)


def test_loglikelihoods_are_those_of_one_pass(harness_model, config, runtime):
    """Catches: an off-by-one of scored tokens, padding that is scored, a sum over the context."""
    pairs = [("Q: 3 + 4?\nA:", " The answer is 7."), ("Tom has", " 5 eggs"), ("", "Ann has 12 pens.")]
    model = runtime.load("builtin", config.model)
    tokens, architecture, params = model.tokenizer, model.config, model.params
    expected = []
    for context, continuation in pairs:
        before = tokens.start(context) if context else [harness_model.prefix_token_id]
        ids = [*before, *tokens.encode(continuation)]
        with use_mesh(runtime.mesh):
            rows, causal = jnp.tile(jnp.asarray([ids]), (8, 1)), jnp.tril(jnp.ones((8, len(ids), len(ids)), bool))
            logits, _ = forward(architecture, params, rows, jnp.tile(jnp.arange(len(ids))[None], (8, 1)), causal)
        logprobs = jax.nn.log_softmax(logits[0])
        expected.append(sum(float(logprobs[i - 1, ids[i]]) for i in range(len(before), len(ids))))
    found = harness_model.loglikelihood(instances(*pairs))
    assert [logprob for logprob, _ in found] == pytest.approx(expected, abs=1e-3)
    rolling = harness_model.loglikelihood_rolling(instances(("Ann has 12 pens.",)))
    assert rolling == pytest.approx(expected[2:], abs=1e-3)


def test_greedy_text_is_greedy(harness_model):
    """Catches: a generation that does not follow its own distribution, or goes beyond its stop string."""
    prompt = "Q: A farm has 3 cows and 4 sheep. How many animals are there in all?\nA:"
    (text,) = harness_model.generate_until(instances((prompt, {"until": ["."], "max_gen_toks": 40})))
    assert text and "." not in text
    ((_, greedy), (_, other)) = harness_model.loglikelihood(instances((prompt, text), (prompt, " zebra")))
    assert greedy and not other


@pytest.fixture
def prefixed(tmp_path, monkeypatch):
    """A model whose tokenizer puts a space in front of texts, and what its engines are given: (prefix, the request's ids)."""
    from lmsi_jax.evaluation import harness

    hf_folder(tmp_path / "hf", "llama2", kind="llama2")
    given = []

    class Spy:
        def __init__(self, mesh, config, tokenizer, limits):
            self.config, self.tokenizer, self.limits = config, tokenizer, limits

        def prefill(self, params, prefix):
            ids = self.tokenizer.start(prefix) if isinstance(prefix, str) else list(prefix)
            assert len(ids) + self.limits.question + self.limits.max_tokens <= self.config.context, "refused by Engine.prefill"
            return ids

        def sample(self, params, prefix, requests, sampling, key):
            for request in requests:
                ids = self.tokenizer.encode(request.text) if request.tokens is None else list(request.tokens)
                assert len(ids) <= self.limits.question, "refused by Engine.sample"
                given.append((prefix, ids))
                yield [SampledPath(request.id, 0, str(len(given)), 1, 0.0, "stop", (2,))]

    monkeypatch.setattr(harness, "Engine", Spy)
    return harness.HarnessModel(checkpoint=str(tmp_path / "hf")), given


FEW_SHOT = "Q: Tom has 12 coins?\nA: The answer is 12.\n\n"


@pytest.mark.parametrize(
    "contexts",
    [
        ["question what is 3?"],
        ["question what?", "Q: How many?", ""],
        ["question 1", "question 1 and 2"],
        [FEW_SHOT + "Q: 3?\nA:", FEW_SHOT + "Q: How many coins?\nA:"],
        [FEW_SHOT + "Q: 3?\nA:", FEW_SHOT * 30 + "Q: How many coins?\nA:"],
    ],
)
def test_a_context_has_the_ids_of_a_whole_text(contexts, prefixed):
    """Catches: a first word without its space; one context too long for the model that stops the evaluation of all."""
    from lmsi_jax.evaluation.harness import HarnessModel

    model, given = prefixed
    room = 512 - 20
    texts = model.generate_until(instances(*((context, {"max_gen_toks": 20}) for context in contexts)))
    expected = [model.tok_encode(context)[-room:] for context in contexts]
    assert isinstance(model, HarnessModel) and max(map(len, expected)) <= room
    assert [sum(given[int(text) - 1], []) for text in texts] == expected
    if contexts[0].startswith(FEW_SHOT) and len(contexts[1]) < 500:
        assert len(given[0][0]) > 20 and given[0][0] == given[1][0], "the few-shot part is computed once"


def test_no_room_for_a_context(prefixed):
    """Catches: an error from inside the decoder, or the whole context in place of none."""
    with pytest.raises(UserError, match="max_gen_toks=512 leaves no room for a prompt in the model's context of 512"):
        prefixed[0].generate_until(instances(("question", {"max_gen_toks": 512})))


def test_null_means_no_cut():
    """Catches: a TypeError for a task that writes `top_k: null`."""
    from lmsi_jax.evaluation.harness import generation

    nulls = {"until": None, "temperature": None, "do_sample": True, "top_k": None, "top_p": None, "max_gen_toks": None}
    assert generation(nulls) == ((), 256, 0.0, 0, 1.0)
    assert generation({"until": ".", "temperature": 0.5, "do_sample": True, "top_k": 5, "top_p": 0.9}) == (
        (".",), 256, 0.5, 5, 0.9,
    )  # fmt: skip


def test_long_texts_are_scored_in_windows(harness_model):
    """Catches: a text longer than the context that is cut, or whose tokens are counted twice."""
    context = folder.load_config("builtin").context
    text = "Tom has 5 eggs. " * (context // 4)
    (whole,) = harness_model.loglikelihood_rolling(instances((text,)))
    (half,) = harness_model.loglikelihood_rolling(instances((text[: len(text) // 2],)))
    assert np.isfinite(whole) and whole < half < 0

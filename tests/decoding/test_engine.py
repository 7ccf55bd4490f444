"""The invariants of decoding, on a random model: what a path is must not depend on how it was computed."""

import dataclasses

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from lmsi_jax.core import rng
from lmsi_jax.core.errors import UserError
from lmsi_jax.decoding import engine, prefill
from lmsi_jax.decoding.config import Sampling
from lmsi_jax.decoding.engine import Limits
from lmsi_jax.decoding.scheduler import Engine, Request
from lmsi_jax.model import transformer
from lmsi_jax.sharding.rules import use_mesh
from tests.conftest import MESHES, mesh_of, place
from tests.decoding.sampled import sampled

FEW_SHOT = "Q: Tom has 2 coins. How many coins?\nA: The answer is 2.\n\n"
QUESTIONS = [
    Request("a", "Q: Ann has 12 nuts and Bob has 5. How many nuts do they have together?\nA:"),
    Request("b", "Q: A farm has 3 cows. How many animals are there in all?\nA:"),
    Request("c", "Q: Eva sold 4 cards on Monday and 31 on Friday. How many cards did Eva sell in all?\nA:"),
    Request("d", "Q: 7 + 8?\nA:"),
    Request("e", "Q: Max has 2 boxes of 3 shells. How many shells is that in all?\nA:"),
]
LONGEST = 64


def decode(config, params, tokenizer, questions=QUESTIONS, mesh=None, **changes):
    """All paths by (id, path)."""
    settings = dict(paths=5, temperature=1.0, max_tokens=12, lanes=8, slots=2, sync_every=4, stops=("on", " 1"))
    mesh, key = mesh or mesh_of(1, 1, 1), rng.stage_key(0, "test")
    with use_mesh(mesh):
        _, found = sampled(mesh, config, params, tokenizer, questions, FEW_SHOT, LONGEST, key, **{**settings, **changes})
        return {(p.id, p.path): p for paths in found for p in paths}


def assert_same(got, expected):
    """Equal texts; log-probabilities equal but for the order of summation, which follows the shapes."""
    assert {k: (p.text, p.num_tokens, p.finish) for k, p in got.items()} == {
        k: (p.text, p.num_tokens, p.finish) for k, p in expected.items()
    }
    for key, path in got.items():
        assert path.logprob == pytest.approx(expected[key].logprob, abs=1e-3)


def test_every_path_comes_once(model_config, params, tokenizer):
    """Catches: a refilled slot that repeats or skips a path; a lane harvested too early."""
    found = decode(model_config, params, tokenizer, lanes=2)
    assert sorted(found) == [(q.id, p) for q in QUESTIONS for p in range(5)]
    assert len({path.text for path in found.values()}) > 15


@pytest.mark.parametrize("changes", [{"lanes": 1}, {"slots": 5}, {"lanes": 2, "slots": 3, "sync_every": 7}])
def test_text_does_not_depend_on_lanes_and_slots(changes, model_config, params, tokenizer):
    """Catches: randomness or caches that belong to the slot and not to the path."""
    assert_same(decode(model_config, params, tokenizer, **changes), decode(model_config, params, tokenizer))


def test_text_does_not_depend_on_neighbours(model_config, params, tokenizer):
    """Catches: a path that sees the question of another lane, or draws from a key shared by the batch."""
    together = decode(model_config, params, tokenizer)
    alone = decode(model_config, params, tokenizer, questions=QUESTIONS[2:3])
    backwards = decode(model_config, params, tokenizer, questions=QUESTIONS[::-1])
    assert_same(alone, {key: path for key, path in together.items() if key[0] == "c"})
    assert_same(backwards, together)


def test_the_number_of_programs_is_known(model_config, params, tokenizer):
    """Catches: a shape or a Python number that changes with the questions, so that every batch compiles again."""
    programs = (engine.start, prefill.prefill_chunk, prefill.prefill_questions, engine.load, engine.decode)
    count = lambda: [program._cache_size() for program in programs]  # noqa: E731
    decode(model_config, params, tokenizer, questions=QUESTIONS[:1])
    before = count()
    decode(model_config, params, tokenizer, questions=QUESTIONS[:1], lanes=3, max_tokens=11)
    first = count()
    assert [b - a for a, b in zip(before, first, strict=True)] == [1, 0, 1, 1, 1], "the few-shot prompt's is there already"
    decode(model_config, params, tokenizer, questions=QUESTIONS[:1], lanes=3, max_tokens=11, temperature=0.3)
    assert count() == first
    decode(model_config, params, tokenizer, lanes=3, max_tokens=11)
    assert prefill.padded_lengths(64) == [32, 64], "one program for each, where there is more than one batch"
    assert [b - a for a, b in zip(first, count(), strict=True)] == [0, 0, 1, 0, 0]


def enough(paths):
    """Two paths will do whose texts begin alike; that is at any moment a function of the paths alone."""
    pairs = range(2, len(paths) + 1)
    return next((n for n in pairs if paths[n - 1].text[:1] == paths[n - 2].text[:1]), 0)


@pytest.mark.parametrize("changes", [{"lanes": 2, "sync_every": 1}, {"lanes": 1, "slots": 3, "sync_every": 7}])
def test_stopping_early_changes_no_text(changes, model_config, params, tokenizer):
    """Catches: paths kept by when the host looked; a stopped lane whose next question inherits something; a lost question."""
    every = decode(model_config, params, tokenizer, paths=9)
    fewer = decode(model_config, params, tokenizer, paths=9, enough=enough, **changes)
    expected = {}
    for question in QUESTIONS:
        paths = [every[question.id, p] for p in range(9)]
        expected |= {(p.id, p.path): p for p in paths[: enough(paths) or None]}
    assert len(QUESTIONS) * 2 < len(expected) < len(every)
    assert_same(fewer, expected)


@pytest.mark.parametrize("shape", MESHES[1:])
def test_sharded_equals_unsharded(shape, model_config, params, tokenizer):
    """Catches: lanes or heads that are mixed up when they live on several devices."""
    expected = decode(model_config, params, tokenizer)
    mesh = mesh_of(*shape)
    got = decode(model_config, place(mesh, model_config, params), tokenizer, mesh=mesh)
    assert_same(got, expected)


def test_gathered_weights_are_whole_and_say_the_same(model_config, params, tokenizer, monkeypatch):
    """Catches: weights that are still sent between devices at every step; heads that are whole too; other text."""
    mesh = mesh_of(2, 2, 2)
    gathered = place(mesh.gathered, model_config, params)
    assert gathered["mlp_0"]["gate"].sharding.shard_shape((32, 64)) == (32, 32)
    got = decode(model_config, gathered, tokenizer, mesh=mesh)
    assert_same(got, decode(model_config, params, tokenizer))
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # shapes stand where arrays would
    mesh = mesh_of(1, 8, 1)
    tokens, mask = jnp.zeros((8, 4), jnp.int32), jnp.ones((8, 4, 4), bool)
    forward = jax.jit(lambda p, t: transformer.forward(model_config, p, t, t, mask)[0])
    for placed, moved in ((mesh, True), (mesh.gathered, False)):
        with use_mesh(mesh):
            text = forward.lower(place(placed, model_config, params), tokens).compile().as_text()
        assert ("all-gather" in text or "all-reduce" in text) == moved


@pytest.mark.parametrize("temperature", [0.7, 1.0, 0.0])
def test_logprob_equals_a_teacher_forced_pass(temperature, model_config, params, tokenizer):
    """Catches: a wrong mask, position or cache slot anywhere between prefill and the last step."""
    found = decode(model_config, params, tokenizer, temperature=temperature, paths=3, stops=(" 1",))
    prompts = {q.id: [tokenizer.bos, *tokenizer.encode(FEW_SHOT), *tokenizer.encode(q.text)] for q in QUESTIONS}
    longest = max(len(prompt) for prompt in prompts.values()) + 12

    @jax.jit
    def forced(tokens):
        mask = jnp.tril(jnp.ones((longest, longest), bool))[None]
        return transformer.forward(model_config, params, tokens, jnp.arange(longest)[None], mask)[0]

    for (id, _), path in found.items():
        answer = list(path.tokens)
        tokens = np.zeros((1, longest), np.int32)
        tokens[0, : len(prompts[id]) + len(answer)] = prompts[id] + answer
        with use_mesh(mesh_of(1, 1, 1)):
            logits = forced(tokens)
        logprobs = jax.nn.log_softmax(logits[0] / (temperature or 1.0))
        start = len(prompts[id])
        expected = sum(float(logprobs[start - 1 + i, token]) for i, token in enumerate(answer))
        assert path.logprob == pytest.approx(expected, abs=2e-4)
        if temperature == 0:
            assert answer == np.argmax(logits[0, start - 1 : start - 1 + len(answer)], axis=-1).tolist()


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_model_that_gives_nan_stops_at_its_first_path(model_config, params, tokenizer, temperature):
    """Catches: hours of sampling from a broken checkpoint, whose paths are all empty and have NaN for a log-probability."""
    broken = {**params, "embedding": params["embedding"].at[5, 3].set(jnp.nan)}
    with pytest.raises(UserError, match="logits that are not finite: path . of question 'a' has the log-probability nan"):
        decode(model_config, broken, tokenizer, QUESTIONS[:1], temperature=temperature, stops=())


def test_stop_strings_end_a_path_before_them(model_config, params, tokenizer):
    """Catches: a stop string that is missed across tokens, or left in the text."""
    free = decode(model_config, params, tokenizer, stops=(), max_tokens=24)
    stops = ("e", "o", " 1")
    stopped = decode(model_config, params, tokenizer, stops=stops, max_tokens=24)
    cut = 0
    for key, path in stopped.items():
        assert not any(stop in path.text for stop in stops)
        ends = [i for i in (free[key].text.find(stop) for stop in stops) if i >= 0]
        if ends:
            cut += 1
            assert path.text == free[key].text[: min(ends)]
            assert path.finish == "stop" and path.num_tokens <= free[key].num_tokens
    assert cut > 5


def test_paths_differ_and_rounds_differ(model_config, params, tokenizer):
    """Catches: one key for all paths, or the same draws in every round."""
    first = rng.path_keys(rng.stage_key(0, "sample", 1), jnp.arange(3), jnp.arange(3))
    second = rng.path_keys(rng.stage_key(0, "sample", 2), jnp.arange(3), jnp.arange(3))
    data = np.concatenate([jax.random.key_data(first), jax.random.key_data(second)])
    assert len(np.unique(data, axis=0)) == 6


def test_utilisation_counts_live_slots(model_config, params, tokenizer):
    """Catches: a utilisation that counts idle slots as work."""
    with use_mesh(mesh_of(1, 1, 1)) as mesh:
        engine, found = sampled(
            mesh, model_config, params, tokenizer, QUESTIONS[:1], FEW_SHOT, LONGEST, rng.stage_key(0, "test"),
            paths=1, max_tokens=8, lanes=4, slots=1, sync_every=4,
        )  # fmt: skip
        tokens = sum(path.num_tokens for paths in found for path in paths)
    assert engine.live_slot_steps == tokens
    assert engine.utilisation == pytest.approx(tokens / engine.slot_steps)
    assert engine.utilisation <= 0.25


def test_too_long_prompt_names_the_numbers(model_config, params, tokenizer):
    """Catches: a prompt that runs past the context and is cut without a word."""
    with pytest.raises(UserError, match=r"600 to generate = \d+, and the model's context is 512"):
        decode(model_config, params, tokenizer, max_tokens=600)


def test_lanes_must_divide_over_the_mesh(model_config, params, tokenizer):
    """Catches: a crash inside XLA instead of an error with the numbers."""
    mesh = mesh_of(8, 1, 1)
    with pytest.raises(UserError, match="lanes=6 does not divide over data x fsdp = 8"):
        decode(model_config, place(mesh, model_config, params), tokenizer, mesh=mesh, lanes=6)


def test_a_long_prompt_in_chunks_and_from_a_file(model_config, params, tokenizer, tmp_path):
    """Catches: a chunk that does not see those before it, or counts its positions from zero; a file of another layout."""
    tokens = tokenizer.start(FEW_SHOT * 4)
    with use_mesh(mesh_of(1, 1, 1)) as mesh:
        whole = prefill.prefill_prefix(mesh, model_config, params, tokens)
        parts = prefill.prefill_prefix(mesh, model_config, params, tokens, chunk=37)
    prefill.save_prefix(tmp_path / "prefix.safetensors", whole)
    with use_mesh(mesh_of(2, 2, 2)) as mesh:
        read = prefill.load_prefix(tmp_path / "prefix.safetensors", mesh)
    for a, b, c in zip(jax.tree.leaves(whole), jax.tree.leaves(parts), jax.tree.leaves(read), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)
        np.testing.assert_array_equal(a, c)


def test_the_prompt_is_computed_once_for_a_run(model_config, params, tokenizer, tmp_path, monkeypatch):
    """Catches: a resumed stage that computes the few-shot prompt again, or reads it wrongly."""
    found, key, file = [], rng.stage_key(0, "test"), tmp_path / "prefix.safetensors"
    for _ in range(2):
        with use_mesh(mesh_of(1, 1, 1)) as mesh:
            _, paths = sampled(
                mesh, model_config, params, tokenizer, QUESTIONS, FEW_SHOT, LONGEST, key,
                paths=2, max_tokens=8, lanes=2, slots=2, file=file,
            )  # fmt: skip
            found.append([path for of_question in paths for path in of_question])
        monkeypatch.setattr("lmsi_jax.decoding.scheduler.prefill_prefix", None)
    assert found[0] == found[1]


def engine_of(mesh, config, tokenizer, **limits):
    usual = dict(lanes=2, slots=2, paths=4, max_tokens=16, question=LONGEST)
    return Engine(mesh, config, tokenizer, Limits(**{**usual, **limits}))


def test_requests_of_one_call_may_be_sampled_otherwise(model_config, params, tokenizer):
    """Catches: a temperature, stop string, length or number of paths of one request that another one gets."""
    own = [
        Sampling(paths=4, temperature=1.0, max_tokens=16, stops=("on",)),
        Sampling(paths=1, temperature=0.0, max_tokens=9, stops=()),
        Sampling(paths=3, temperature=0.6, max_tokens=5, stops=("e", " 1")),
    ]
    key = rng.stage_key(0, "test")
    with use_mesh(mesh_of(1, 1, 1)) as mesh:
        engine = engine_of(mesh, model_config, tokenizer)
        prefix = engine.prefill(params, FEW_SHOT)
        requests = [dataclasses.replace(question, sampling=s) for question, s in zip(QUESTIONS, own, strict=False)]
        together = {p[0].id: p for p in engine.sample(params, prefix, requests, own[0], key)}
        for question, sampling in zip(QUESTIONS, own, strict=False):
            (alone,) = engine.sample(params, prefix, [question], sampling, key)
            assert len(alone) == sampling.paths and max(path.num_tokens for path in alone) <= sampling.max_tokens
            assert_same({(p.id, p.path): p for p in together[question.id]}, {(p.id, p.path): p for p in alone})
        with pytest.raises(UserError, match="'a' must have the same truncation"):
            list(engine.sample(params, prefix, requests[:1], Sampling(top_k=3, paths=4, max_tokens=16), key))
        with pytest.raises(UserError, match="'a' has 5 paths, and the engine's limit is 4"):
            list(engine.sample(params, prefix, QUESTIONS[:1], Sampling(paths=5, max_tokens=16), key))


def test_new_parameters_compile_nothing(model_config, params, tokenizer):
    """Catches: an update of a policy that costs a compilation, or a stop table, of every program."""
    programs = (engine.start, prefill.prefill_chunk, prefill.prefill_questions, engine.load, engine.decode)
    sampling, key = Sampling(paths=4, max_tokens=16, stops=("on",)), rng.stage_key(0, "test")
    with use_mesh(mesh_of(1, 1, 1)) as mesh:
        of_model = engine_of(mesh, model_config, tokenizer)
        counts, texts = [], []
        for scale in (1.0, 1.1):
            moved = jax.tree.map(lambda leaf: leaf * scale, params)  # noqa: B023
            found = of_model.sample(moved, of_model.prefill(moved, FEW_SHOT), QUESTIONS, sampling, key)
            texts.append({path.text for paths in found for path in paths})
            counts.append([program._cache_size() for program in programs])
    assert counts[0] == counts[1] and texts[0] != texts[1]


def test_a_request_goes_on_behind_the_very_tokens_of_a_path(model_config, params, tokenizer):
    """Catches: a part of a path that is made into text and split anew; log-probabilities that are not the scorer's."""
    key, sampling = rng.stage_key(0, "test"), Sampling(paths=2, temperature=1.0, max_tokens=12, stops=())
    with use_mesh(mesh_of(1, 1, 1)) as mesh:
        engine = engine_of(mesh, model_config, tokenizer, paths=2, logprobs=True)
        prefix = engine.prefill(params, FEW_SHOT)
        (first, _), *_ = engine.sample(params, prefix, QUESTIONS[:1], sampling, key)
        asked = (*tokenizer.encode(QUESTIONS[0].text), *first.tokens[:5])
        text = QUESTIONS[0].text + tokenizer.decode(first.tokens[:5])
        assert tokenizer.encode(text) != list(asked), "its text has other ids, so that a detour shows"
        (paths,) = engine.sample(params, prefix, [Request("a", tokens=asked)], sampling, key)
        before = [*tokenizer.start(FEW_SHOT), *asked]
        rows = [[*before, *path.tokens] for path in paths]
        for path, scores in zip(paths, engine.score(params, rows), strict=True):
            expected = scores.logprobs[len(before) - 1 :]
            np.testing.assert_allclose(path.logprobs, expected, atol=2e-4)
            assert path.logprob == pytest.approx(sum(path.logprobs), abs=1e-3) and len(path.logprobs) == path.num_tokens


def test_scores_do_not_depend_on_the_rows_beside(model_config, params, tokenizer):
    """Catches: padding that is attended to, rows that come back in another order, scores that are not those of a plain pass."""
    rows = [[1, *range(10, 10 + length)] for length in (70, 3, 20, 1)]
    with use_mesh(mesh_of(1, 1, 1)) as mesh:
        engine = engine_of(mesh, model_config, tokenizer)
        together = list(engine.score(params, rows, batch=3))
        for row, scores in zip(rows, together, strict=True):
            (alone,) = engine.score(params, [row], batch=1)
            assert len(scores.logprobs) == len(row) - 1
            np.testing.assert_allclose(scores.logprobs, alone.logprobs, atol=1e-5)
            assert scores.likeliest.tolist() == alone.likeliest.tolist()
            ids, t = jnp.asarray([row]), len(row)
            causal = jnp.tril(jnp.ones((1, t, t), bool))
            plain = jax.jit(lambda ids, at, mask: transformer.forward(model_config, params, ids, at, mask)[0])
            expected = np.asarray(jax.nn.log_softmax(plain(ids, jnp.arange(t)[None], causal)[0, :-1]))
            np.testing.assert_allclose(scores.logprobs, expected[np.arange(t - 1), row[1:]], atol=2e-4)
            assert scores.likeliest.tolist() == (expected.argmax(axis=-1) == row[1:]).tolist()


def test_a_bfloat16_cache_on_a_cpu(model_config, params, tokenizer):
    """Catches: number formats that follow the platform, so that no test on a CPU ever sees those of an accelerator."""
    config = dataclasses.replace(model_config, cache_dtype="bfloat16")
    with use_mesh(mesh_of(1, 1, 1)) as mesh:
        of_model = engine_of(mesh, config, tokenizer)
        prefix = of_model.prefill(params, FEW_SHOT)
        state = engine.start(config, of_model.limits)
        caches = (*jax.tree.leaves(prefix.cache), *jax.tree.leaves(state.cache), *jax.tree.leaves(state.question_cache))
        assert {str(leaf.dtype) for leaf in caches} == {"bfloat16"}
        sampling = Sampling(paths=4, temperature=1.0, max_tokens=16)
        found = of_model.sample(params, prefix, QUESTIONS, sampling, rng.stage_key(0, "test"))
        rounded = {(p.id, p.path): p for paths in found for p in paths}
    wide = decode(model_config, params, tokenizer, paths=4, max_tokens=16, lanes=2, stops=("\nQ:",))
    same = [rounded[key].text == path.text for key, path in wide.items()]
    assert 0 < sum(same) < len(same), "the same model, rounded"

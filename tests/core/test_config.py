import dataclasses

import pytest

from lmsi_jax.cli.configs import load_config
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.settings import build, check, to_dict
from lmsi_jax.model.config import ModelConfig, RopeScaling
from lmsi_jax.recipes.config import Config, PretrainConfig


def test_round_trip_through_json():
    """Catches: a resolved config that cannot be read back, such as tuples that come back as lists."""
    import json

    config = Config()
    assert build(Config, json.loads(json.dumps(to_dict(config)))) == config


def test_unknown_keys_name_the_nearest():
    """Catches: a misspelt setting that is silently ignored."""
    with pytest.raises(UserError, match=r"'sample\.temprature'. The nearest known key is 'sample\.temperature'"):
        build(Config, {"sample": {"temprature": 1.0}})
    with pytest.raises(UserError, match=r"'sample\.pahts'. The nearest known key is 'sample\.paths'"):
        load_config(Config, None, ["--config.sample.pahts=3"])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sample": {"paths": 0}}, "sample.paths=0: a vote needs at least one path"),
        ({"sample": {"temperature": -0.5}}, "sample.temperature=-0.5 is negative"),
        ({"sample": {"top_p": 0.0}}, r"sample.top_p=0.0 is outside \(0, 1\]"),
        ({"sample": {"paths": "many"}}, "sample.paths='many' is a str, not a int"),
        ({"sample": {"paths": True}}, "sample.paths=True is a bool"),
        ({"sample": 3}, "'sample' is a section"),
        ({"rounds": -1}, "rounds=-1 must be at least 0"),
        ({"format": {"formats": ("few_shot",)}}, "unknown: few_shot"),
        ({"finetune": {"batch": 10, "accumulate": 4}}, "finetune.batch=10 is not a multiple of finetune.accumulate=4"),
        ({"finetune": {"beta2": 1.5}}, r"beta2=1.5 is not within \[0, 1\)"),
        ({"finetune": {"weight_decay": -0.1}}, "weight_decay=-0.1 is negative"),
        ({"finetune": {"final_learning_rate": -3}}, r"final_learning_rate=-3.0 is not a share within 0\.\.1"),
        ({"finetune": {"final_learning_rate": 1.5}}, r"final_learning_rate=1.5 is not a share within 0\.\.1"),
        ({"data": {"num_eval": -1}}, "data.num_eval=-1 is negative"),
        ({"data": {"terms": (5, 3)}}, "not a range"),
        ({"train_from": "scratch"}, "train_from='scratch' is not one of 'base', 'previous'"),
    ],
)
def test_impossible_values_name_the_numbers(values, message):
    """Catches: a bad value that is found only after minutes of compiling."""
    with pytest.raises(UserError, match=message):
        build(Config, values)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_numbers_must_be_finite(value):
    """Catches: a NaN or an infinity that no comparison refuses, in any setting of a file, a flag or a class."""
    with pytest.raises(UserError, match=rf"^finetune\.weight_decay={value} is not a finite number"):
        build(Config, {"finetune": {"weight_decay": value}})
    with pytest.raises(UserError, match=rf"^plan\.watts={value} is not a finite number"):
        load_config(Config, None, [f"--config.plan.watts={value}"])
    with pytest.raises(UserError, match=rf"^rope_scaling\.factor={value} is not a finite number"):
        check(ModelConfig(rope_scaling=RopeScaling(factor=value)))


def test_heads_must_group():
    """Catches: grouped attention with a remainder."""
    with pytest.raises(UserError, match="model.heads=6 is not a multiple of model.kv_heads=4"):
        build(PretrainConfig, {"model": {"heads": 6, "kv_heads": 4}})


def test_flags_change_files_and_files_change_defaults(tmp_path):
    """Catches: a flag that loses to the file, a tuple or number that arrives as text."""
    file = tmp_path / "c.py"
    file.write_text(
        "from ml_collections import ConfigDict\n"
        "def get_config():\n"
        "    return ConfigDict({'rounds': 3, 'sample': {'paths': 8, 'stops': ('x',)}})\n"
    )
    config = load_config(Config, str(file), ["--config.sample.paths=4", "--config.finetune.learning_rate=1"])
    assert (config.rounds, config.sample.paths, config.sample.stops) == (3, 4, ("x",))
    assert config.finetune.learning_rate == 1.0 and config.sample.temperature == 0.7
    config = load_config(Config, str(file), ["--config.sample.stops=('a','b')", "--config.data.terms=(2,4)"])
    assert (config.sample.stops, config.data.terms) == (("a", "b"), (2, 4))


@pytest.mark.parametrize("flag", ["--config.sample=3", "--config.rounds", "--config.rounds=two", "--config.sample.paths.x=1"])
def test_malformed_flags(flag):
    """Catches: a stack trace for a slip on the command line."""
    with pytest.raises(UserError):
        load_config(Config, None, [flag])


def test_config_file_that_is_missing_or_broken(tmp_path):
    """Catches: a stack trace for a slip in a config file."""
    with pytest.raises(UserError, match="does not exist"):
        load_config(Config, str(tmp_path / "no.py"), [])
    (tmp_path / "bad.py").write_text("def get_config(:\n")
    with pytest.raises(UserError, match="SyntaxError"):
        load_config(Config, str(tmp_path / "bad.py"), [])


@pytest.mark.parametrize("name", ["tiny", "tiny_full", "jsonl", "tiny_base"])
def test_shipped_configs_load(name):
    """Catches: a config file left behind by a change of the settings."""
    from pathlib import Path

    file = Path(__file__).parents[2] / "configs" / f"{name}.py"
    cls = PretrainConfig if name == "tiny_base" else Config
    overrides = ["--config.data.questions=q.jsonl"] if name == "jsonl" else []
    config = load_config(cls, str(file), overrides)
    assert dataclasses.is_dataclass(config)
    assert f"--config=configs/{name}.py" in file.read_text(), "the docstring names the command"


@pytest.mark.parametrize("seed", [-1, 2**32, 2**40])
def test_seeds_that_give_the_same_keys_are_refused(seed):
    """Catches: two runs that were to differ by their seed and are the same, since keys are made of 32 bits."""
    with pytest.raises(UserError, match=f"seed={seed} is not within 0..4294967295"):
        build(Config, {"seed": seed})
    with pytest.raises(UserError, match=f"seed={seed}"):
        build(PretrainConfig, {"seed": seed})

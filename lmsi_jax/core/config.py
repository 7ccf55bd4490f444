"""Every setting and its default, as frozen dataclasses: the only place where a default is written.

A config file (`configs/*.py`) names what it changes; `build.py` turns such a nested dict into these classes
once, at the command line. Checks that span fields run here, before anything compiles.
"""

import dataclasses
import re
from typing import Literal

from lmsi_jax.core.errors import UserError

FORMATS = ("few_shot_cot", "few_shot_direct", "zero_shot_cot", "zero_shot_direct")


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise UserError(message)


def _check_seed(seed: int) -> None:
    _require(0 <= seed < 2**32, f"seed={seed} is not within 0..{2**32 - 1}; random keys are made of its 32 bits alone.")


@dataclasses.dataclass(frozen=True)
class RopeScaling:
    """Stretching rotary positions beyond the context of pre-training; not those of layers with a rope_base_local."""

    kind: Literal["none", "linear", "llama3"] = "none"
    factor: float = 1.0
    low_frequency: float = 1.0  # llama3: rotations within original_context, below which a pair is stretched in full
    high_frequency: float = 4.0  # llama3: rotations above which a pair is left alone
    original_context: int = 8192  # llama3

    def check(self) -> None:
        _require(self.factor > 0, f"model.rope_scaling.factor={self.factor} must be positive.")
        _require(
            self.kind != "llama3" or self.high_frequency > self.low_frequency,
            f"model.rope_scaling.high_frequency={self.high_frequency} must be above low_frequency={self.low_frequency}.",
        )


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """A decoder-only transformer. A family of models is a row of these settings; the defaults are Llama's choices."""

    vocab: int = 768
    width: int = 128
    layers: int = 4
    heads: int = 4
    kv_heads: int = 2
    head_width: int = 32
    mlp: int = 512
    context: int = 2048  # longest sequence, in tokens
    rope_base: float = 10_000.0
    rope_base_local: float = 0.0  # of layers with a window; 0 = rope_base
    rope_scaling: RopeScaling = RopeScaling()
    windows: tuple[int, ...] = ()  # of each layer: how many tokens back it sees, itself included; 0 = all. () = all 0
    norm: Literal["rms", "rms_plus_one", "layer"] = "rms"  # plus_one: the stored scale is that above 1 (Gemma)
    norm_epsilon: float = 1e-6
    post_norms: bool = False  # norms after attention and MLP too (Gemma 2, 3)
    qk_norm: bool = False  # norms of each head's query and key (Qwen3, Gemma 3)
    qkv_bias: bool = False  # Qwen2
    parallel: bool = False  # attention and MLP side by side, on one norm (PaLM)
    activation: Literal["silu", "gelu"] = "silu"  # of the MLP's gate; gelu by its tanh approximation
    attention_scale: float = 0.0  # of the scores; 0 = 1 / sqrt(head_width)
    attention_softcap: float = 0.0  # scores stay within +-this; 0 = no bound (Gemma 2)
    logit_softcap: float = 0.0
    tied_embedding: bool = True
    scaled_embedding: bool = False  # inputs are multiplied by sqrt(width) (Gemma, PaLM, the built-in model)
    param_dtype: Literal["float32", "bfloat16", "float16"] = "float32"  # storage; the optimiser's copy is float32
    dtype: Literal["float32", "bfloat16"] = "float32"  # matmuls; norms, softmax and logits stay float32

    def check(self) -> None:
        for name in ("vocab", "width", "layers", "heads", "kv_heads", "head_width", "mlp", "context"):
            _require(getattr(self, name) >= 1, f"model.{name}={getattr(self, name)} must be at least 1.")
        _require(
            self.heads % self.kv_heads == 0,
            f"model.heads={self.heads} is not a multiple of model.kv_heads={self.kv_heads}; each key/value "
            f"head serves the same number of query heads.",
        )
        _require(self.head_width % 2 == 0, f"model.head_width={self.head_width} is odd; RoPE turns pairs.")
        _require(
            len(self.windows) in (0, self.layers) and all(window >= 0 for window in self.windows),
            f"model.windows={self.windows} must name a window (0 = none) for each of model.layers={self.layers}, or nothing.",
        )


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Devices as a (data, fsdp, tensor) grid. One of the three may be -1: all devices that remain."""

    data: int = -1
    fsdp: int = 1
    tensor: int = 1
    cpu_devices: int = 0  # devices to split a CPU into; 0 = as JAX does, which is one. No effect on GPU and TPU
    rules: dict[str, str] = dataclasses.field(default_factory=dict)  # logical axis -> "fsdp", "data,fsdp" or ""
    largest_whole: float = 0.25  # GiB of a parameter that may be on every device where fsdp or tensor could split it


@dataclasses.dataclass(frozen=True)
class SourceConfig:
    """The model to improve: "builtin", a checkpoint folder that this package wrote, or one of Hugging Face."""

    checkpoint: str = "builtin"
    dtype: Literal["stored", "float32", "bfloat16"] = "stored"  # of the matmuls; stored = as in the checkpoint


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Where questions come from. Only evaluation and audit read their gold answers."""

    task: str = "word_problems"  # word_problems, jsonl, or a data set of tasks/sets
    source: Literal["jsonl", "files", "tfds"] = "jsonl"  # of a data set: question files as below, or as published
    folder: str = ""  # files: where the published files are; tfds: its data directory, "" = TFDS's own
    train_split: str = ""  # files, tfds: the split whose questions are trained on; "" = the paper's
    eval_split: str = ""  # files, tfds: the split that is scored; "" = the paper's
    train_on_test: bool = False  # allow self-training on the split that is scored
    skip_malformed: bool = False  # files, tfds: leave out and count rows that cannot be read
    questions: str = ""  # jsonl: the unlabelled questions
    eval_questions: str = ""  # jsonl: held-out questions with answers; empty = no evaluation
    answer_type: Literal["", "number", "choice", "yes_no", "span", "math", "text"] = ""  # "" = the task's; jsonl: number
    exemplars: str = ""  # few-shot exemplars, a JSONL file; empty = the task's own
    shots: int = 0  # exemplars in the prompt; 0 = all of them
    chat: bool = False  # prompts through the model's chat template, for instruction-tuned models
    num_questions: int = 0  # 0 = every question of the file; word_problems has to be told
    num_eval: int = 0
    terms: tuple[int, int] = (3, 6)  # word_problems: fewest and most quantities in a question
    largest: int = 99  # word_problems: the largest plain quantity

    def check(self) -> None:
        _require(
            2 <= self.terms[0] <= self.terms[1] <= 10,
            f"data.terms={self.terms} is not a range (fewest, most) within 2..10.",
        )
        _require(self.largest >= 9, f"data.largest={self.largest}: quantities need room; set it to 9 or more.")
        for name in ("num_questions", "num_eval", "shots"):
            _require(getattr(self, name) >= 0, f"data.{name}={getattr(self, name)} is negative; 0 takes all there are.")


@dataclasses.dataclass(frozen=True)
class AdaptiveConfig:
    """Drawing no more paths of a question whose vote is decided; see voting/adaptive.py. The paper draws all."""

    rule: Literal["none", "forecast", "beta", "window"] = "none"
    floor: int = 4  # fewest paths of a question
    threshold: float = 0.97  # forecast, beta: how sure the leader must be
    window: int = 5  # window: how many successive paths must agree

    def check(self) -> None:
        _require(self.floor >= 1, f"sample.adaptive.floor={self.floor} must be at least 1.")
        _require(self.window >= 2, f"sample.adaptive.window={self.window}: one path always agrees with itself; take 2 or more.")
        _require(0.5 < self.threshold < 1, f"sample.adaptive.threshold={self.threshold} is not within (0.5, 1).")


@dataclasses.dataclass(frozen=True)
class EndpointConfig:
    """An OpenAI-compatible server to sample from: vLLM, SGLang, a hosted API; see decoding/endpoint.py."""

    url: str = "http://localhost:8000/v1"  # http://USER:PASSWORD@HOST/v1 too: core/secrets.py takes the login out
    model: str = ""  # by the server's name for it
    api: Literal["completions", "chat"] = "completions"  # chat: the whole prompt is one message of the user
    key_variable: str = "OPENAI_API_KEY"  # the environment variable with the key, "" = none; it is read from nowhere else
    concurrency: int = 16  # requests at a time
    paths_per_request: int = 0  # 0 = all of a question's in one
    retries: int = 6
    timeout: float = 300.0  # seconds without a sign of the server
    prompt_price: float = 0.0  # dollars per million tokens, for the cost in the report
    completion_price: float = 0.0

    def check(self) -> None:
        _require(
            bool(re.fullmatch(r"https?://(\[[\da-f:.]+\]|[^\s/?#@:\[\]]+)(:\d{1,5})?(/[^\s?#@]*)?", self.url, re.IGNORECASE)),
            "sample.endpoint.url, not shown as it may hold a secret, is no http address without '?' and '#', such as "
            "http://localhost:8000/v1. A login stands before the host, as in http://USER:PASSWORD@HOST/v1, with %40 for '@', "
            "%2F for '/', %3F for '?' and %23 for '#'. A key goes into the environment variable OPENAI_API_KEY.",
        )
        _require(
            bool(re.fullmatch("[A-Z_][A-Z0-9_]*|", self.key_variable)),
            "sample.endpoint.key_variable, not shown as it may be a key, is no name of an environment variable (of capital "
            "letters, digits and '_'). Put the key into a variable, and name that.",
        )
        for name, least in (("concurrency", 1), ("paths_per_request", 0), ("retries", 0)):
            _require(getattr(self, name) >= least, f"sample.endpoint.{name}={getattr(self, name)} must be at least {least}.")
        _require(self.timeout > 0, f"sample.endpoint.timeout={self.timeout} must be positive.")


@dataclasses.dataclass(frozen=True)
class SampleConfig:
    """Multi-path decoding (Huang et al. 2022, section 4: m=32, T=0.7, 256 tokens)."""

    engine: Literal["mesh", "openai"] = "mesh"  # openai: `endpoint` samples, and the model here learns from it
    paths: int = 32  # m
    temperature: float = 0.7  # of the base model
    temperature_after: float = 1.2  # of a model that was fine-tuned on its own paths
    top_k: int = 0  # 0 = the whole vocabulary
    top_p: float = 1.0
    max_tokens: int = 256
    lanes: int = 16  # questions in flight; 0 = as many as fit into `memory`
    slots: int = 8  # paths in flight of each
    memory: float = 0.0  # GiB of each device that decoding may take, where lanes = 0; 0 = nine tenths of what is free
    weights: Literal["stored", "int8"] = "stored"  # int8: rounded for decoding, a quarter of float32; see model/quantize.py
    gather: bool = True  # whole weights on each part of mesh.fsdp while decoding; False = as in training, gathered every step
    adaptive: AdaptiveConfig = AdaptiveConfig()
    endpoint: EndpointConfig = EndpointConfig()
    stops: tuple[str, ...] = ("\nQ:",)  # a path ends before the first of these
    sync_every: int = 16  # decode steps between two looks of the host
    questions_per_shard: int = 64  # questions in one output shard: the unit of resume
    profile: tuple[int, int] = (0, 0)  # an XProf trace from the first to the last of these questions to finish; (0, 0) = none

    def check(self) -> None:
        _require(
            self.paths >= 1,
            f"sample.paths={self.paths}: a vote needs at least one path for each question; the paper takes 32.",
        )
        for name in ("temperature", "temperature_after"):
            value = getattr(self, name)
            _require(
                value >= 0,
                f"sample.{name}={value} is negative; 0 is greedy decoding, 0.7 the paper's value.",
            )
        _require(
            self.engine == "mesh" or bool(self.endpoint.model),
            "sample.engine='openai' needs --config.sample.endpoint.model, the server's name for its model.",
        )
        _require(self.top_k >= 0, f"sample.top_k={self.top_k} is negative; 0 keeps the whole vocabulary.")
        _require(0 < self.top_p <= 1, f"sample.top_p={self.top_p} is outside (0, 1]; 1 keeps the whole vocabulary.")
        _require(all(self.stops), f"sample.stops={self.stops} has an empty string, which would end every path at once.")
        for name in ("lanes", "memory"):
            _require(getattr(self, name) >= 0, f"sample.{name}={getattr(self, name)} is negative; 0 has it chosen.")
        for name in ("max_tokens", "slots", "sync_every", "questions_per_shard"):
            _require(getattr(self, name) >= 1, f"sample.{name}={getattr(self, name)} must be at least 1.")


@dataclasses.dataclass(frozen=True)
class SelectConfig:
    """Which voted paths to train on. The defaults are the paper's: every agreeing path of every question."""

    rule: Literal["majority", "random", "gold"] = "majority"  # the last two are controls, see voting/select.py
    tie: Literal["first", "random", "abstain"] = "first"
    vote: Literal["majority", "sum_probability", "average_probability", "sum_normalised", "average_normalised"] = (
        "majority"  # what the winning answer has most of, see voting/majority.py
    )
    min_confidence: float = 0.0  # drop questions whose vote share is below
    max_paths: int = 0  # cap for each question; 0 = none
    distinct: bool = False  # one path for each distinct text

    def check(self) -> None:
        _require(
            0 <= self.min_confidence <= 1,
            f"select.min_confidence={self.min_confidence} is not a share of votes within 0..1.",
        )
        _require(self.max_paths >= 0, f"select.max_paths={self.max_paths} is negative; 0 means no cap.")


@dataclasses.dataclass(frozen=True)
class FormatConfig:
    """The mixed formats of section 3.2; leave some out to repeat the paper's ablation."""

    formats: tuple[str, ...] = FORMATS
    distinct_direct: bool = False  # one direct row a question; else one a path, as in the paper, all alike

    def check(self) -> None:
        unknown = sorted(set(self.formats) - set(FORMATS))
        _require(
            bool(self.formats) and not unknown,
            f"format.formats={self.formats} must name at least one of {', '.join(FORMATS)}"
            + (f"; unknown: {', '.join(unknown)}." if unknown else "."),
        )


@dataclasses.dataclass(frozen=True)
class LoraConfig:
    """Low-rank adapters in place of a full fine-tune; see model/lora.py."""

    rank: int = 0  # 0 = train all parameters
    alpha: float = 16.0  # the adapters count alpha / rank
    targets: str = r"attention_\d+/(query|key|value|out)|mlp_\d+/(gate|up|down)"  # a regex on the weights' paths

    def check(self) -> None:
        _require(self.rank >= 0, f"lora.rank={self.rank} is negative; 0 trains all parameters.")
        _require(self.alpha > 0, f"lora.alpha={self.alpha} must be positive.")
        try:
            re.compile(self.targets)
        except re.error as error:
            raise UserError(f"lora.targets={self.targets!r} is not a regular expression: {error}.") from error


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """One run of the optimiser, for pre-training and fine-tuning alike."""

    steps: int = 200
    batch: int = 32  # packed rows a step
    row_length: int = 256  # tokens a packed row; a prompt that is shared is not in it
    share_prompts: bool = True  # compute what all rows of a format begin with once a step, and not in each row
    weighting: Literal["token", "row", "question"] = "token"  # what counts alike in the loss, see formatting/mixed.py
    optimizer: Literal["adamw", "adafactor"] = "adamw"  # adafactor keeps sums of rows and columns in place of two moments
    remat: Literal["none", "dots", "full"] = "none"  # activations kept for the backward pass, see model/transformer.py
    learning_rate: float = 5e-4
    schedule: Literal["cosine", "linear", "constant"] = "cosine"  # of the learning rate, after the warm-up
    final_learning_rate: float = 0.1  # at the last step, as a share of learning_rate; not of a constant one
    warmup: int = 20  # steps of a rate that rises linearly; the last of them has learning_rate
    weight_decay: float = 0.01
    beta2: float = 0.98
    clip: float = 1.0  # global gradient norm
    z_loss: float = 0.0  # 1e-4 as in PaLM; see training/step.py
    accumulate: int = 1  # microbatches a step; batch must be a multiple
    lora: LoraConfig = LoraConfig()
    save_every: int = 200  # steps between checkpoints
    log_every: int = 10
    profile: tuple[int, int] = (0, 0)  # first and last step of an XProf trace in metrics/profile; (0, 0) = none

    def check(self) -> None:
        for name in ("steps", "batch", "row_length", "accumulate", "save_every", "log_every"):
            _require(getattr(self, name) >= 1, f"{name}={getattr(self, name)} must be at least 1.")
        _require(
            self.batch % self.accumulate == 0,
            f"batch={self.batch} is not a multiple of accumulate={self.accumulate}; every microbatch has "
            f"the same number of rows.",
        )
        _require(0 <= self.beta2 < 1, f"beta2={self.beta2} is not within [0, 1); it is the decay of Adam's second moment.")
        _require(self.weight_decay >= 0, f"weight_decay={self.weight_decay} is negative; 0 is without.")
        _require(
            0 <= self.final_learning_rate <= 1,
            f"final_learning_rate={self.final_learning_rate} is not a share within 0..1 of learning_rate.",
        )
        _require(self.z_loss >= 0, f"z_loss={self.z_loss} is negative; PaLM takes 1e-4, and 0 is without.")
        for name in ("learning_rate", "clip"):
            _require(getattr(self, name) > 0, f"{name}={getattr(self, name)} must be positive.")
        _require(0 <= self.warmup < self.steps, f"warmup={self.warmup} must be at least 0 and less than steps={self.steps}.")


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
    """Held-out scores: Standard, CoT greedy and self-consistency."""

    self_consistency: bool = True  # with sample.paths paths
    standard_tokens: int = 32  # longest direct answer

    def check(self) -> None:
        _require(self.standard_tokens >= 1, f"evaluate.standard_tokens={self.standard_tokens}: an answer takes at least 1.")


@dataclasses.dataclass(frozen=True)
class PlanConfig:
    """What `lmsi plan` assumes that a run would find out; lengths in tokens."""

    preset: str = ""  # a published architecture of core/presets.py; "" = the model's own
    questions: int = 7473  # of a round; GSM8K has as many
    eval_questions: int = 1319  # held out, scored once a round; 0 = no evaluation
    prompt: int = 900  # the few-shot prompt
    question: int = 100
    tokens: float = 0.0  # of a path on average; 0 = half of sample.max_tokens
    price: float = 0.0  # dollars for a chip and an hour
    watts: float = 0.0  # of a chip

    def check(self) -> None:
        for name, least in (("questions", 1), ("eval_questions", 0), ("prompt", 1), ("question", 1)):
            _require(getattr(self, name) >= least, f"plan.{name}={getattr(self, name)} must be at least {least}.")


@dataclasses.dataclass(frozen=True)
class Config:
    """One self-improvement run."""

    seed: int = 0
    rounds: int = 1
    train_from: Literal["base", "previous"] = "base"  # parameters a round's fine-tuning starts from
    model: SourceConfig = SourceConfig()
    mesh: MeshConfig = MeshConfig()
    data: DataConfig = DataConfig()
    sample: SampleConfig = SampleConfig()
    select: SelectConfig = SelectConfig()
    format: FormatConfig = FormatConfig()
    finetune: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    plan: PlanConfig = PlanConfig()

    def check(self) -> None:
        _check_seed(self.seed)
        _require(self.rounds >= 1, f"rounds={self.rounds}: at least one round of self-improvement.")
        _require(
            self.rounds == 1 or self.sample.engine == "mesh",
            f"rounds={self.rounds} with sample.engine='openai': the server's model is the same in each round. Set rounds=1, "
            f"serve the new model and start the next run from it, or sample on the mesh.",
        )


@dataclasses.dataclass(frozen=True)
class CorpusConfig:
    """The generated English the built-in model is trained on; see tasks/word_corpus.py."""

    documents: int = 100_000
    terms: tuple[int, int] = (2, 4)
    largest: int = 99
    sloppy: float = 0.4  # share of documents whose writer makes mistakes
    mistake: float = 0.25  # share of a sloppy writer's solutions with a mistake

    def check(self) -> None:
        _require(self.documents >= 1, f"corpus.documents={self.documents} must be at least 1.")
        _require(
            2 <= self.terms[0] <= self.terms[1] <= 10,
            f"corpus.terms={self.terms} is not a range (fewest, most) within 2..10.",
        )
        for name in ("sloppy", "mistake"):
            _require(0 <= getattr(self, name) <= 1, f"corpus.{name}={getattr(self, name)} is not a share within 0..1.")


@dataclasses.dataclass(frozen=True)
class PretrainConfig:
    """Train a base model from nothing on generated word problems."""

    seed: int = 0
    model: ModelConfig = ModelConfig()
    mesh: MeshConfig = MeshConfig()
    corpus: CorpusConfig = CorpusConfig()
    tokenizer_documents: int = 20_000  # documents the tokenizer is trained on
    train: TrainConfig = TrainConfig(steps=3000, learning_rate=2e-3, warmup=100, weight_decay=0.1)

    def check(self) -> None:
        _check_seed(self.seed)

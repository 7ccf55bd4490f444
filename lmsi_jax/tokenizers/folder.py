"""The tokenizer of a checkpoint folder."""

from typing import Any

from etils import epath

from lmsi_jax.core.errors import UserError
from lmsi_jax.core.files import read_object
from lmsi_jax.tokenizers.chat import ChatTemplate
from lmsi_jax.tokenizers.huggingface import JsonTokenizer
from lmsi_jax.tokenizers.protocol import Tokenizer
from lmsi_jax.tokenizers.sentencepiece import SentencePieceTokenizer

FILES = ("tokenizer.json", "tokenizer.model")


def load(folder: epath.Path, *, control: bool = False) -> Tokenizer:
    """Return the tokenizer of a folder, from tokenizer.json or else tokenizer.model.

    The ids that begin and end a text come from the settings files beside it. With `control`, the names of control tokens in a
    text are encoded as these tokens, as chat templates require. Raises UserError when there is no usable tokenizer.
    """
    settings = _read(folder / "tokenizer_config.json")
    if (folder / "tokenizer.json").exists():
        file = folder / "tokenizer.json"
        tokenizer: Any = JsonTokenizer(_read(file), str(file), add_bos=settings.get("add_bos_token"), control=control)
        bos, eos = (tokenizer.id(_content(settings.get(name)) or "") for name in ("bos_token", "eos_token"))
        tokenizer.bos = bos if settings.get("add_bos_token") and tokenizer.bos < 0 else tokenizer.bos
        tokenizer.eos = eos
    elif control:
        raise UserError(f"{folder} has no tokenizer.json, which --config.data.chat requires for the names of control tokens.")
    elif (folder / "tokenizer.model").exists():
        file = folder / "tokenizer.model"
        tokenizer = SentencePieceTokenizer(file.read_bytes(), str(file), add_bos=settings.get("add_bos_token") is not False)
    else:
        raise UserError(f"{folder} has no tokenizer; put {' or '.join(FILES)} of the model there.")
    # An instruction-tuned model ends a turn with a different id than a text. Either id ends a path.
    ends = [tokenizer.eos, *_ids(_read(folder / "generation_config.json"))]
    if len(ends) == 1:
        ends += _ids(_read(folder / "config.json")) or _ids(_read(folder / "huggingface.json"))
    if control:  # the template may end a turn with yet another id
        names = set(tokenizer.control_names)
        closing = (id for id in tokenizer.encode(load_chat_template(folder).answer()[2]) if tokenizer.name(id) in names)
        ends = [next(closing, -1), *ends]
    tokenizer.ends = tuple(dict.fromkeys(id for id in ends if id >= 0))
    tokenizer.eos = next(iter(tokenizer.ends), -1)
    return tokenizer


def load_chat_template(folder: epath.Path) -> ChatTemplate:
    """Return the chat template of a checkpoint folder. Raises UserError when it has none."""
    settings, file = _read(folder / "tokenizer_config.json"), folder / "chat_template.jinja"
    source = file.read_text() if file.exists() else settings.get("chat_template")
    if isinstance(source, list):  # several templates, by name
        source = {item["name"]: item["template"] for item in source}.get("default")
    if not source:
        raise UserError(
            f"{folder} has no chat template (chat_template.jinja, or one in tokenizer_config.json); set "
            f"--config.data.chat=False, or use the instruction-tuned model."
        )
    bos, eos = (_content(settings.get(name)) or "" for name in ("bos_token", "eos_token"))
    added = _read(folder / "tokenizer.json").get("added_tokens", [])
    return ChatTemplate(source, bos, eos, tuple(token["content"] for token in added if token["special"]))


def _read(file: epath.Path) -> dict[str, Any]:
    return read_object(file) if file.exists() else {}


def _content(token: Any) -> str | None:
    """Return the text of a token in a settings file, which is a string or an object with flags."""
    return token.get("content") if isinstance(token, dict) else token


def _ids(settings: dict[str, Any]) -> list[int]:
    ids = settings.get("eos_token_id")
    return [] if ids is None else [ids] if isinstance(ids, int) else list(ids)

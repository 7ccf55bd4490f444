"""The tokenizer of a checkpoint folder."""

import json
from typing import Any

from etils import epath

from lmsi_jax.core.errors import UserError
from lmsi_jax.tokenizers.chat import ChatTemplate
from lmsi_jax.tokenizers.huggingface import JsonTokenizer
from lmsi_jax.tokenizers.protocol import Tokenizer
from lmsi_jax.tokenizers.sentencepiece import SentencePieceTokenizer

FILES = ("tokenizer.json", "tokenizer.model")


def load(folder: epath.Path, *, control: bool = False) -> Tokenizer:
    """tokenizer.json, or else tokenizer.model; what begins and ends a text is taken from the files beside it.

    With `control`, names of control tokens in a text stand for these tokens, as chat templates write them.
    """
    settings = _read(folder / "tokenizer_config.json")
    if (folder / "tokenizer.json").exists():
        file = folder / "tokenizer.json"
        tokenizer: Any = JsonTokenizer(_read(file), str(file), add_bos=settings.get("add_bos_token"), control=control)
        bos, eos = (tokenizer.id(_content(settings.get(name)) or "") for name in ("bos_token", "eos_token"))
        tokenizer.bos = bos if settings.get("add_bos_token") and tokenizer.bos < 0 else tokenizer.bos
        tokenizer.eos = eos
    elif control:
        raise UserError(f"{folder} has no tokenizer.json, which --config.data.chat needs for the names of control tokens.")
    elif (folder / "tokenizer.model").exists():
        file = folder / "tokenizer.model"
        tokenizer = SentencePieceTokenizer(file.read_bytes(), str(file), add_bos=settings.get("add_bos_token") is not False)
    else:
        raise UserError(f"{folder} has no tokenizer; put {' or '.join(FILES)} of the model there.")
    # An instruction-tuned model ends a turn with another id than a text; both end a path.
    ends = [tokenizer.eos, *_ids(_read(folder / "generation_config.json"))]
    if len(ends) == 1:
        ends += _ids(_read(folder / "config.json")) or _ids(_read(folder / "huggingface.json"))
    if control:  # a turn may end otherwise than a text
        names = set(tokenizer.control_names)
        closing = (id for id in tokenizer.encode(load_chat_template(folder).answer()[2]) if tokenizer.name(id) in names)
        ends = [next(closing, -1), *ends]
    tokenizer.ends = tuple(dict.fromkeys(id for id in ends if id >= 0))
    tokenizer.eos = next(iter(tokenizer.ends), -1)
    return tokenizer


def load_chat_template(folder: epath.Path) -> ChatTemplate:
    """The chat template of a checkpoint folder. Raises UserError when it has none."""
    settings, file = _read(folder / "tokenizer_config.json"), folder / "chat_template.jinja"
    source = file.read_text() if file.exists() else settings.get("chat_template")
    if isinstance(source, list):  # several, by name
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
    if not file.exists():
        return {}
    try:
        found = json.loads(file.read_text())
    except ValueError as error:
        raise UserError(f"{file} is not valid JSON ({error}); copy it again from the model's source.") from error
    if not isinstance(found, dict):
        raise UserError(f"{file} holds no JSON object; copy it again from the model's source.")
    return found


def _content(token: Any) -> str | None:
    """The text of a token that a settings file names, plainly or with its flags."""
    return token.get("content") if isinstance(token, dict) else token


def _ids(settings: dict[str, Any]) -> list[int]:
    found = settings.get("eos_token_id")
    return [] if found is None else [found] if isinstance(found, int) else list(found)

"""tokenizer.json files, read with the `tokenizers` library."""

import functools
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

import tokenizers

from lmsi_jax.core.errors import UserError
from lmsi_jax.tokenizers.protocol import join

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


class JsonTokenizer:
    """A tokenizer.json of the byte-level (Llama 3, Qwen) or byte-fallback (Llama 2, Mistral, Gemma) kind. See `Tokenizer`."""

    def __init__(
        self, spec: dict[str, Any], name: str = "tokenizer.json", *, add_bos: bool | None = None, control: bool = False
    ):
        kind = _kind(spec)
        if kind is None:
            raise UserError(
                f"{name} is neither of the byte-level nor of the byte-fallback kind (decoder {spec.get('decoder')!r:.80}), so "
                f"it cannot encode every text; models of the supported families have one of these."
            )
        self._kind, self._added = kind, {token["id"]: token for token in spec.get("added_tokens", [])}
        # A file may put a space before each section of a text; control tokens separate the sections. A text that continues
        # another one has no space before its first section.
        self._tokenizer = _library(spec, name, control)
        unprefixed = _without_prefix(spec)
        self._unprefixed = self._tokenizer if unprefixed == spec else _library(unprefixed, name, control)
        self._plain = JsonTokenizer(spec, name, add_bos=add_bos) if control else self
        # Control tokens may have ids beyond a model's embedding, since texts are never encoded as them.
        ids = self._tokenizer.get_vocab(with_added_tokens=True).values()
        self.vocab: int = max(id for id in ids if not self._added.get(id, {}).get("special")) + 1
        self.bos: int = self._bos(add_bos)
        self.eos: int = -1  # `load` sets it from the model's settings
        self.ends: tuple[int, ...] = ()
        names = (token["content"] for token in self._added.values() if token["special"])
        self.control_names: tuple[str, ...] = tuple(names) if control else ()

    def id(self, token: str) -> int:
        """Return the id of a token by its name, or -1 when there is none."""
        known = self._tokenizer.token_to_id(token)
        return -1 if known is None else known

    def name(self, id: int) -> str | None:
        """Return the name of a token by its id, or None when there is none."""
        return self._tokenizer.id_to_token(id)

    def encode(self, text: str) -> list[int]:
        ids = self._ids(self._unprefixed, text)
        if self._unprefixed is self._tokenizer:
            return ids
        prefixed = self._ids(self._tokenizer, text)
        return ids[: self._first_added(ids)] + prefixed[self._first_added(prefixed) :]

    def start(self, text: str) -> list[int]:
        ids = self._ids(self._tokenizer, text)
        has_bos = self.control_names and ids[:1] == [self.bos]  # written by a chat template
        return ids if self.bos < 0 or has_bos else [self.bos, *ids]

    def encode_completion(self, text: str, prompt: Sequence[int]) -> list[int]:
        before = self._added[prompt[-1]]["content"] if self.control_names and prompt and prompt[-1] in self._added else ""
        first = text[:1]  # too short for the name of a control token
        prefixed = before and self._ids(self._tokenizer, before + first)[1:] != self._ids(self._unprefixed, first)
        return self._plain.encode(f" {text}" if prefixed else text)

    def _ids(self, tokenizer: tokenizers.Tokenizer, text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False).ids

    def _first_added(self, ids: Sequence[int]) -> int:
        """Return the index at which the first section of a text ends."""
        return next((i for i, id in enumerate(ids) if id in self._added), len(ids))

    def decode(self, ids: Iterable[int]) -> str:
        return join(self.token_bytes, ids)

    @functools.cached_property
    def token_bytes(self) -> list[bytes]:
        pieces = [b""] * (max(self._tokenizer.get_vocab(with_added_tokens=True).values()) + 1)
        for token, id in self._tokenizer.get_vocab(with_added_tokens=True).items():
            added = self._added.get(id)
            if added:
                spelled = token.replace("\u2581", " ") if self._kind == "byte_fallback" else token
                pieces[id] = b"" if added["special"] else spelled.encode("utf-8")
            elif self._kind == "byte_level":
                pieces[id] = bytes(_unicode_to_byte()[character] for character in token)
            else:
                byte = _BYTE.fullmatch(token)
                pieces[id] = bytes([int(byte[1], 16)]) if byte else token.replace("\u2581", " ").encode("utf-8")
        return pieces

    def _bos(self, add_bos: bool | None) -> int:
        """Return the id that the file's post-processor puts first, or -1 when there is none or `add_bos` is False."""
        plain = self._tokenizer.encode("a", add_special_tokens=False).ids
        full = self._tokenizer.encode("a", add_special_tokens=True).ids
        bos = full[0] if full[: len(plain)] != plain else -1
        return -1 if add_bos is False else bos


def _library(spec: dict[str, Any], name: str, control: bool) -> tokenizers.Tokenizer:
    """Return the tokenizer of the library. With `control`, names of control tokens are encoded as these tokens."""
    try:
        tokenizer = tokenizers.Tokenizer.from_str(json.dumps(spec))
    except Exception as error:  # the library raises nothing narrower
        raise UserError(f"{name} is not a tokenizer file ({error}); copy it again from the model's source.") from error
    tokenizer.encode_special_tokens = not control
    tokenizer.no_truncation()  # a file may contain the settings of the last call before it was saved
    tokenizer.no_padding()
    return tokenizer


def _parts(node: Any) -> list[dict]:
    """Return the steps of a normalizer, pre-tokenizer or decoder."""
    if not node:
        return []
    for key in ("normalizers", "pretokenizers", "decoders"):
        if key in node:
            return [step for part in node[key] for step in _parts(part)]
    return [node]


def _kind(spec: dict[str, Any]) -> str | None:
    kinds = {step["type"] for step in _parts(spec.get("decoder"))}
    if "ByteLevel" in kinds:
        return "byte_level"
    return "byte_fallback" if spec.get("model", {}).get("byte_fallback") else None


def _without_prefix(spec: dict[str, Any]) -> dict[str, Any]:
    """Return the same spec without the space that it puts before texts."""

    def strip(node: Any) -> Any:
        if isinstance(node, list):
            return [strip(part) for part in node if not (isinstance(part, dict) and part.get("type") == "Prepend")]
        if not isinstance(node, dict):
            return node
        node = {key: strip(value) for key, value in node.items()}
        if node.get("type") == "Metaspace":
            node = {k: v for k, v in node.items() if k != "add_prefix_space"} | {"prepend_scheme": "never"}
        if node.get("type") == "ByteLevel":
            node["add_prefix_space"] = False
        return node

    normalizer = spec.get("normalizer")
    normalizer = None if (normalizer or {}).get("type") == "Prepend" else strip(normalizer)
    return {**spec, "normalizer": normalizer, "pre_tokenizer": strip(spec.get("pre_tokenizer"))}


@functools.cache
def _unicode_to_byte() -> dict[str, int]:
    """Return the byte for each printable character that byte-level tokenizers write in its place (GPT-2's table)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}

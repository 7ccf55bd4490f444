"""The interface of a tokenizer."""

from collections.abc import Iterable, Sequence
from typing import Protocol, runtime_checkable


@runtime_checkable
class Tokenizer(Protocol):
    """Text to ids and back. A text may be encoded in parts: `start` for its beginning, `encode` for what follows.

    Names of control tokens in a text are plain text, unless the tokenizer was loaded with `control` for chat templates.
    """

    vocab: int  # ids of encoded texts are below this
    bos: int  # first id of every text of this model; -1 = none
    eos: int  # last id of a training text; -1 = none
    ends: tuple[int, ...]  # ids that end a path while decoding, including `eos`
    control_names: tuple[str, ...]  # names that are encoded as control tokens; () unless loaded with `control`

    def encode(self, text: str) -> list[int]:
        """Return the ids of text that follows other text."""
        ...

    def start(self, text: str) -> list[int]:
        """Return the ids of the beginning of a text, with exactly one `bos` in front if the model uses it."""
        ...

    def encode_completion(self, text: str, prompt: Sequence[int]) -> list[int]:
        """Return the ids of a completion of the ids `prompt`. Names of control tokens in it are always plain text."""
        ...

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of `ids`. Bytes that are not UTF-8 become U+FFFD, and control tokens are left out."""
        ...

    @property
    def token_bytes(self) -> list[bytes]:
        """The bytes of each id, which are empty for control tokens. Stop strings are matched on these."""
        ...


def join(pieces: list[bytes], ids: Iterable[int]) -> str:
    """Return the text of `ids`, where `pieces` has the bytes of each id."""
    return b"".join(pieces[id] for id in ids if 0 <= id < len(pieces)).decode("utf-8", "replace")

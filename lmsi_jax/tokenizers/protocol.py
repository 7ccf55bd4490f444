"""What the rest of the package knows of a tokenizer."""

from collections.abc import Iterable, Sequence
from typing import Protocol, runtime_checkable


@runtime_checkable
class Tokenizer(Protocol):
    """Text to ids and back. A text may be encoded in parts: `start` for its beginning, `encode` for what follows.

    Names of control tokens in a text are plain text, unless the tokenizer was loaded with `control` for chat templates.
    """

    vocab: int  # ids are below
    bos: int  # begins every text of this model; -1 = the model wants none
    eos: int  # ends a training text; -1 = none
    ends: tuple[int, ...]  # ids that end a text while decoding, `eos` among them
    control_names: tuple[str, ...]  # that stand for control tokens in a text; () unless loaded with `control`

    def encode(self, text: str) -> list[int]:
        """Ids of text that follows other text."""
        ...

    def start(self, text: str) -> list[int]:
        """Ids of the beginning of a text, `bos` exactly once in front if the model wants one."""
        ...

    def encode_completion(self, text: str, prompt: Sequence[int]) -> list[int]:
        """Ids of what a model wrote behind the ids `prompt`: names of control tokens in it are always plain text."""
        ...

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`; bytes that are not UTF-8 become U+FFFD, control tokens nothing."""
        ...

    @property
    def token_bytes(self) -> list[bytes]:
        """The bytes each id stands for; control ids stand for none. Stop strings are matched on these."""
        ...


def join(pieces: list[bytes], ids: Iterable[int]) -> str:
    """The text of `ids`, whose bytes are `pieces`."""
    return b"".join(pieces[id] for id in ids if 0 <= id < len(pieces)).decode("utf-8", "replace")

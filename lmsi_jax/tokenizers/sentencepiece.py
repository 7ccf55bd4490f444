"""SentencePiece models: loading, and training the built-in one."""

import io
import os
from collections.abc import Iterable

import sentencepiece
from etils import epath

from lmsi_jax.core.errors import UserError


class SentencePieceTokenizer:
    """A `.model` file. `encode` adds no special ids: whoever builds a prompt puts `bos` in front, once."""

    def __init__(self, model: bytes, name: str = "tokenizer"):
        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        except RuntimeError as error:
            raise UserError(f"{name} is not a SentencePiece model ({error}); copy the checkpoint folder again.") from error
        self.model = model
        self.vocab: int = self._processor.vocab_size()
        self.bos: int = self._processor.bos_id()
        self.eos: int = self._processor.eos_id()
        self.pad: int = max(self._processor.pad_id(), 0)

    @classmethod
    def load(cls, file: os.PathLike | str) -> "SentencePieceTokenizer":
        path = epath.Path(file)
        if not path.exists():
            raise UserError(f"{path} does not exist; a checkpoint folder holds tokenizer.model, config.json and params/.")
        return cls(path.read_bytes(), str(path))

    def encode(self, text: str) -> list[int]:
        return self._processor.encode(text)

    def decode(self, ids: Iterable[int]) -> str:
        return self._processor.decode(list(ids))

    def token_bytes(self) -> list[bytes]:
        """The bytes each id stands for; control ids stand for none. Stop strings are matched on these."""
        pieces = []
        for i in range(self.vocab):
            if self._processor.is_control(i) or self._processor.is_unknown(i):
                pieces.append(b"")
            elif self._processor.is_byte(i):
                pieces.append(bytes([int(self._processor.id_to_piece(i)[3:5], 16)]))
            else:
                pieces.append(self._processor.id_to_piece(i).replace("\u2581", " ").encode("utf-8"))
        return pieces


def train(lines: Iterable[str], vocab: int) -> SentencePieceTokenizer:
    """A BPE model of `vocab` pieces in which digits stand alone and any text can be written.

    A digit after a space is one piece with it (" 4"), which saves a token a number. Bytes are the fallback for
    characters that are not in `lines`. A newline and a blank line are pieces of their own, because prompts and stop
    strings are made of them.
    """
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=model,
        model_type="bpe",
        vocab_size=vocab,
        split_digits=True,
        byte_fallback=True,
        character_coverage=1.0,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        user_defined_symbols=["\n\n", "\n", *(f"\u2581{digit}" for digit in range(10))],
        pad_id=0,
        bos_id=1,
        eos_id=2,
        unk_id=3,
        num_threads=1,
        minloglevel=2,
    )
    return SentencePieceTokenizer(model.getvalue())

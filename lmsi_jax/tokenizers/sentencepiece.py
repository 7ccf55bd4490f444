"""SentencePiece models: loading, and training the built-in one."""

import functools
import io
from collections.abc import Iterable, Sequence
from typing import Any

import sentencepiece
from google.protobuf.message import DecodeError
from sentencepiece import sentencepiece_model_pb2

from lmsi_jax.core.errors import UserError
from lmsi_jax.tokenizers.protocol import join


class SentencePieceTokenizer:
    """A SentencePiece `.model` file. See `Tokenizer` for the methods."""

    def __init__(self, model: bytes, name: str = "tokenizer", *, add_bos: bool = True):
        proto: Any = getattr(sentencepiece_model_pb2, "ModelProto")()  # noqa: B009 (made at import)
        try:
            proto.ParseFromString(model)
            # Text is encoded in parts, and only the first part has the prefix.
            self._prefix = " " if proto.normalizer_spec.add_dummy_prefix else ""
            proto.normalizer_spec.add_dummy_prefix = False
            proto.normalizer_spec.remove_extra_whitespaces = False
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=proto.SerializeToString())
        except (RuntimeError, DecodeError) as error:
            raise UserError(f"{name} is not a SentencePiece model ({error}); copy the checkpoint folder again.") from error
        self.model = model
        self.vocab: int = self._processor.vocab_size()
        self.bos: int = self._processor.bos_id() if add_bos else -1
        self.eos: int = self._processor.eos_id()
        self.ends: tuple[int, ...] = (self.eos,) if self.eos >= 0 else ()
        self.control_names: tuple[str, ...] = ()

    def encode(self, text: str) -> list[int]:
        return self._processor.encode(text)

    def start(self, text: str) -> list[int]:
        return ([self.bos] if self.bos >= 0 else []) + self.encode(self._prefix + text if text else text)

    def encode_completion(self, text: str, prompt: Sequence[int]) -> list[int]:
        return self.encode(text)

    def decode(self, ids: Iterable[int]) -> str:
        return join(self.token_bytes, ids)

    @functools.cached_property
    def token_bytes(self) -> list[bytes]:
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
    """Train a BPE model of `vocab` pieces that splits numbers into digits and can encode any text.

    A digit and a space before it are one piece (" 4"), which saves a token per number. Characters that are not in `lines`
    are encoded as bytes. A newline and a blank line are pieces of their own, because prompts and stop strings contain them.
    Raises UserError when `vocab` is too small for the characters of the lines, or too large for the lines.
    """
    model = io.BytesIO()
    try:
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
    except RuntimeError as error:
        raise UserError(
            f"A vocabulary of {vocab} pieces cannot be trained on these texts: {str(error).rpartition(']')[2].strip()} Change "
            f"the model's `vocab`."
        ) from error
    return SentencePieceTokenizer(model.getvalue())

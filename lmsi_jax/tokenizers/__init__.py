"""Text to token ids and back."""

from lmsi_jax.tokenizers.sentencepiece import SentencePieceTokenizer, train

__all__ = ["SentencePieceTokenizer", "train"]

"""Tokenizers: text to token ids and back."""

from lmsi_jax.tokenizers.chat import ChatTemplate
from lmsi_jax.tokenizers.folder import load, load_chat_template
from lmsi_jax.tokenizers.huggingface import JsonTokenizer
from lmsi_jax.tokenizers.protocol import Tokenizer
from lmsi_jax.tokenizers.sentencepiece import SentencePieceTokenizer, train

__all__ = ["ChatTemplate", "JsonTokenizer", "SentencePieceTokenizer", "Tokenizer", "load", "load_chat_template", "train"]

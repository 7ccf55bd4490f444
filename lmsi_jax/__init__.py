"""Large language models that improve themselves on unlabelled questions, in JAX."""

__version__ = "0.1.0"

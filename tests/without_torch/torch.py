"""Found in place of torch by the processes that tests start. The product has to run without it, and starts faster."""

raise ImportError("lmsi_jax must not need torch")

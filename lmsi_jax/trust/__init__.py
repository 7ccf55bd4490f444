"""Checks of reasoning, as pure functions that do not depend on JAX."""

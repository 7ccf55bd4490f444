"""Voting over answers, as pure functions that do not depend on JAX."""

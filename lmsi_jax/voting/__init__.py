"""Voting over answers: a library of pure functions that needs no JAX."""

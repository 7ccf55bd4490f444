"""Decoding of many paths per prompt: sampling, stop strings, the engine and its scheduler, and an endpoint client."""

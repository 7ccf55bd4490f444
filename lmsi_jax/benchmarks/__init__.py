"""Benchmarks. Each module prints one JSON line per figure."""

"""Stages, the runner that knows what is done, and the loop itself."""

"""Stages, recipes, the runner that skips stages that are done, and the store that runs share."""

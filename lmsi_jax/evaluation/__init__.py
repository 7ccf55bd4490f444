"""Scores on held-out questions, with their uncertainty."""

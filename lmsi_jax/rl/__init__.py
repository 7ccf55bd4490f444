"""Reinforcement learning: advantages, losses, divergences, preferences, rewards, signals of collapse."""

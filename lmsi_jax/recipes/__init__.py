"""Recipes: each is a list of stages over named models."""

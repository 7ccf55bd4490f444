"""Stages: each consists of a settings class and a function from files to files."""

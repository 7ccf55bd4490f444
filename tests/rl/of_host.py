"""A reward for runs of several processes. It is imported by `lmsi`, and does not import what sets up JAX for tests."""

import os


def reward(question, path):
    """Other numbers on other hosts, as from a clock or a server."""
    return float(len(path["text"]) % 2 + 10 * int(os.environ.get("JAX_PROCESS_ID", "0")))

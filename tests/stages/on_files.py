"""The pure stages on files, with their settings spelled out."""

from lmsi_jax.core.settings import part
from lmsi_jax.stages import vote
from lmsi_jax.stages.format import FormatSettings, run_format
from lmsi_jax.stages.vote import VoteSettings, run_vote
from lmsi_jax.voting.config import VoteConfig


def extract_file(paths, output, task, flexible=False):
    vote.extract_file(paths, output, task.reader, flexible)


def vote_file(paths, votes, task, select, questions=None, planned=0):
    inputs = {"paths": paths, **({"questions": questions} if questions else {})}
    run_vote(None, VoteSettings(task.reader, part(select, VoteConfig), planned), inputs, {"votes": votes})


def format_file(config, task, prompts, questions, paths, votes, examples, gold=None):
    inputs = {"questions": questions, "paths": paths, "votes": votes, **({"gold": gold} if gold else {})}
    settings = FormatSettings(config.seed, task.reader, prompts, config.select, config.format)
    run_format(None, settings, inputs, {"examples": examples})

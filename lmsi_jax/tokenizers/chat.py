"""Chat templates: prompts as instruction-tuned models expect them, few-shot exemplars as earlier turns."""

import dataclasses
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lmsi_jax.core.errors import UserError

MEMORY = 1 << 30  # bytes that a template's process may address
SECONDS = 10  # of computing that it may take
LONGEST = 10_000_000  # characters that it may write
_MARK = "MESSAGE-GOES-HERE"


@dataclasses.dataclass(frozen=True)
class Around:
    """What a template writes around a question: the turns before it, what opens its own turn, and what follows it.

    `before` ends where a token ends, so that it may be encoded without the rest.
    """

    before: str
    opening: str
    after: str


@dataclasses.dataclass(frozen=True)
class ChatTemplate:
    """A template as it stands beside a model's tokenizer, and the names of the tokens it may write."""

    source: str
    bos: str = ""
    eos: str = ""
    control: tuple[str, ...] = ()  # all control tokens

    def around(self, *conversations: Sequence[tuple[str, str]]) -> list[Around]:
        """For each of several conversations, pairs of (question, answer), what stands around the question that follows it."""
        asked: list[list[dict[str, str]]] = []
        for turns in conversations:
            messages = [_message(role, text) for turn in turns for role, text in zip(("user", "assistant"), turn, strict=True)]
            asked.append([*messages, _message("user", _MARK)])
        found = []
        for text in self.render(*((messages, True) for messages in asked)):
            before, after = _split(text, "user")
            # Tokens reach over neither side of a control token; a space belongs to the token of the word behind it.
            cut = max((before.rfind(name) for name in self.control), default=-1)
            if cut < 0 or (cut == 0 and before.startswith(self.bos or _MARK)):
                cut = len(before.rstrip(" "))
            found.append(Around(before[:cut], before[cut:], after))
        return found

    def answer(self) -> tuple[str, str, str]:
        """What stands before the assistant's text behind its prompt, and after it, such as spaces; what then ends its turn."""
        question = _message("user", "?")
        whole, prompt = self.render(([question, _message("assistant", _MARK)], False), ([question], True))
        before, after = _split(whole, "assistant")
        end = min((after.find(name) for name in self.control if name in after), default=0)
        return before[len(prompt) :] if before.startswith(prompt) else "", after[:end], after[end:]

    def render(self, *conversations: tuple[list[dict[str, str]], bool]) -> list[str]:
        """The texts of conversations, each given by its messages and whether the assistant's next turn is opened.

        A template is code that came with a model: it runs in a process of its own, with limits of memory and time.
        """
        variables = [
            {"messages": messages, "add_generation_prompt": open_turn, "bos_token": self.bos, "eos_token": self.eos}
            for messages, open_turn in conversations
        ]
        limits = {"memory": MEMORY, "seconds": SECONDS, "longest": LONGEST}
        request = json.dumps({"source": self.source, "conversations": variables, **limits})
        command = [sys.executable, "-P", str(Path(__file__).with_name("render.py"))]
        done = subprocess.run(command, input=request, capture_output=True, text=True, check=False)
        if done.returncode < 0:
            answer: dict[str, Any] = {"error": f"it takes more than {SECONDS} s of computing or {MEMORY >> 20} MiB of memory"}
        elif done.returncode:
            answer = {"error": done.stderr.strip().rpartition("\n")[2]}
        else:
            answer = json.loads(done.stdout)
        if "error" in answer:
            raise UserError(
                f"The model's chat template fails: {answer['error']}. Set --config.data.chat=False to use the plain prompts."
            )
        return answer["texts"]


def _message(role: str, text: str) -> dict[str, str]:
    return {"role": role, "content": text}


def _split(text: str, role: str) -> tuple[str, str]:
    """What stands before and after the message of which the mark is the text."""
    before, mark, after = text.partition(_MARK)
    if not mark or _MARK in after:
        raise UserError(
            f"The chat template does not write the {role}'s message exactly once; set --config.data.chat=False, or repair "
            f"chat_template in tokenizer_config.json."
        )
    return before, after

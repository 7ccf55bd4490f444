"""Chat templates: prompts in the form that instruction-tuned models expect, with few-shot exemplars as earlier turns."""

import dataclasses
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lmsi_jax.core.errors import UserError

MEMORY = 1 << 30  # bytes of address space of the template's process
SECONDS = 10  # of CPU time
LONGEST = 10_000_000  # characters of output
_MARK = "MESSAGE-GOES-HERE"


@dataclasses.dataclass(frozen=True)
class Around:
    """The text that a template writes around a question: the earlier turns, the opening of its own turn, and what follows.

    `before` ends at a token boundary, so that it may be encoded separately from the rest.
    """

    before: str
    opening: str
    after: str


@dataclasses.dataclass(frozen=True)
class ChatTemplate:
    """The chat template of a model's tokenizer, and the names of the tokens that it may write."""

    source: str
    bos: str = ""
    eos: str = ""
    control: tuple[str, ...] = ()  # names of all control tokens

    def around(self, *conversations: Sequence[tuple[str, str]]) -> list[Around]:
        """Return the text around the question that follows each conversation.

        A conversation is a sequence of (question, answer) pairs.
        """
        dialogues: list[list[dict[str, str]]] = []
        for turns in conversations:
            messages = [_message(role, text) for turn in turns for role, text in zip(("user", "assistant"), turn, strict=True)]
            dialogues.append([*messages, _message("user", _MARK)])
        parts = []
        for text in self.render(*((messages, True) for messages in dialogues)):
            before, after = _split(text, "user")
            # No token extends across the start or end of a control token, and a space belongs to the token of the next word.
            cut = max((before.rfind(name) for name in self.control), default=-1)
            if cut < 0 or (cut == 0 and before.startswith(self.bos or _MARK)):
                cut = len(before.rstrip(" "))
            parts.append(Around(before[:cut], before[cut:], after))
        return parts

    def answer(self) -> tuple[str, str, str]:
        """Return the text around an answer: what is between the prompt and the answer, what follows it, and what ends its turn.

        The second is text such as spaces before a control token. The third begins with that control token.
        """
        question = _message("user", "?")
        dialogue, prompt = self.render(([question, _message("assistant", _MARK)], False), ([question], True))
        before, after = _split(dialogue, "assistant")
        end = min((after.find(name) for name in self.control if name in after), default=0)
        return before[len(prompt) :] if before.startswith(prompt) else "", after[:end], after[end:]

    def render(self, *conversations: tuple[list[dict[str, str]], bool]) -> list[str]:
        """Return the text of each conversation, given as its messages and whether to open the assistant's next turn.

        A template is code that came with a model. It runs in a separate process with limits on memory and CPU time. Raises
        UserError when it fails or exceeds a limit.
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
            reply: dict[str, Any] = {"error": f"it takes more than {SECONDS} s of CPU time or {MEMORY >> 20} MiB of memory"}
        elif done.returncode:
            reply = {"error": done.stderr.strip().rpartition("\n")[2]}
        else:
            reply = json.loads(done.stdout)
        if "error" in reply:
            raise UserError(
                f"The model's chat template fails: {reply['error']}. Set --config.data.chat=False to use the plain prompts."
            )
        return reply["texts"]


def _message(role: str, text: str) -> dict[str, str]:
    return {"role": role, "content": text}


def _split(text: str, role: str) -> tuple[str, str]:
    """Return the text before and after the message whose text is the mark."""
    before, mark, after = text.partition(_MARK)
    if not mark or _MARK in after:
        raise UserError(
            f"The chat template does not write the {role}'s message exactly once; set --config.data.chat=False, or repair "
            f"chat_template in tokenizer_config.json."
        )
    return before, after

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
_MARK = "QUESTION-GOES-HERE"


@dataclasses.dataclass(frozen=True)
class ChatTemplate:
    """A template as it stands beside a model's tokenizer, and the names of the tokens it may write."""

    source: str
    bos: str = ""
    eos: str = ""

    def around(self, turns: Sequence[tuple[str, str]]) -> tuple[str, str]:
        """What stands before and after a question that follows `turns`, pairs of (question, answer)."""
        messages = [m for q, a in turns for m in ({"role": "user", "content": q}, {"role": "assistant", "content": a})]
        (text,) = self._render(([*messages, {"role": "user", "content": _MARK}], True))
        before, mark, after = text.partition(_MARK)
        if not mark or _MARK in after:
            raise UserError(
                "The chat template does not write the user's message exactly once; set --config.data.chat=False, or repair "
                "chat_template in tokenizer_config.json."
            )
        return before, after

    def after_answer(self) -> str:
        """What ends the assistant's turn."""
        messages = [{"role": "user", "content": "?"}, {"role": "assistant", "content": _MARK}]
        return self._render((messages, False))[0].rpartition(_MARK)[2]

    def _render(self, *conversations: tuple[list[dict[str, str]], bool]) -> list[str]:
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

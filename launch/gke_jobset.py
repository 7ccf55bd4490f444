"""Print launch/gke_jobset.yaml with its words in capitals replaced by the settings of launch/gke.sh.

Settings come from the environment, and the arguments of `lmsi run` from the command line. Each is written as a JSON string,
which YAML reads as the same text whatever characters it holds.
"""

import json
import os
import re
import sys
from pathlib import Path

TEXTS = ("NAME", "IMAGE", "ACCELERATOR", "TOPOLOGY")
NUMBERS = ("HOSTS", "CHIPS")


def quoted(text: str) -> str:
    """Text as a YAML string. YAML has its own escape for characters that JSON writes as two."""
    return '"' + "".join(json.dumps(c)[1:-1] if c <= "\uffff" else f"\\U{ord(c):08x}" for c in text) + '"'


def literal(argument: str) -> str:
    """An argument that Kubernetes passes on as it is: it replaces $(NAME) by a variable, and $$ by $."""
    return argument.replace("$", "$$")


def main() -> None:
    """Print the manifest."""
    wrong = [name for name in NUMBERS if not os.environ[name].isascii() or not os.environ[name].isdigit()]
    if wrong:
        sys.exit(f"launch/gke.sh: {wrong[0]}={os.environ[wrong[0]]} must be a number, such as 4.")
    values = {name: quoted(os.environ[name]) for name in TEXTS}
    values |= {name: os.environ[name] for name in NUMBERS}
    values["ARGUMENTS"] = "[" + ", ".join(quoted(literal(argument)) for argument in sys.argv[1:]) + "]"
    template = Path(__file__).with_name("gke_jobset.yaml").read_text(encoding="utf-8")
    template = re.sub(r"^#.*\n", "", template, flags=re.MULTILINE)
    print(re.sub(rf"\b({'|'.join(values)})\b", lambda word: values[word[0]], template), end="")


if __name__ == "__main__":
    main()

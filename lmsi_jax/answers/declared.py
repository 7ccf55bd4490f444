"""Find where a text declares its answer: "the answer is", "Answer:", "####", a box or "(B) is correct"."""

import re
from collections.abc import Iterator

from lmsi_jax.answers import latex

# Where a model's own text ends: at a next question that it invents, at the next chat turn, or at a special token.
_NEXT_QUESTION = re.compile(
    r"\n[ \t]*(?:(?:\*\*|#+ ?)?(?:Q|Question|Problem|Exercise)(?: ?\d+)?(?:\s?[:.](?!\d)|(?<=\d)\s*\n)"
    r"|(?:Human|User|Student|Input|Instruction)\s?:)|\n[ \t]*\n(?:Premise|Passage|Context|Article)\s?:"
    r"|(?<=[.!?])[ \t]+(?:Q|Question|Human)\s?:\s|<\||</s>|<eos>|<end_of_turn>|<start_of_turn>|\[/?INST\]"
)
_THOUGHT = re.compile(r"^.*</think(?:ing)?>", re.DOTALL)
_THINKING = re.compile(r"<think(?:ing)?>")
_ANNOTATION = re.compile(r"<<[^<>\n]{0,200}>>")  # a calculator annotation of GSM8K

# Phrases that come before an answer.
_IS = (
    r"(?:is|was|=|equals|(?:will|would|should|must|could)\s+(?:therefore\s+)?be|(?:has|have)\s+to\s+be"
    r"|comes\s+(?:out\s+)?to)(?!\w)"
)
_MARKER = re.compile(
    rf"\banswer(?:\s*\([^()\n]{{1,40}}\))?(?:\s(?:to|for|of|in|here|choice|option)\b[^.:?\n]{{0,80}}?)?\s*{_IS}"
    rf"|\b(?:correct|right|best)\s+(?:option|choice|one|statement|response)\s*{_IS}"
    r"|\b(?:answer|correct\s+(?:option|choice))\W{0,3}:|\banswer\s(?:key\s)?[-\u2013\u2014]\s|\bans(?:wer)?\s?[.:=]"
    r"|####(?!#)(?!\s*(?:step|part|\d+[.)]\s+[a-z]|[a-z]+\s[a-z]+\s))"
    r"|<(?:final_?)?answer>|^[^\w\n]*(?:final\s+)?answer[^\w\n]*$",
    re.IGNORECASE | re.MULTILINE,
)
# Phrases before a marker that negate it or make it hypothetical, so that it declares no answer.
_DENIED = re.compile(
    r"(?:\b(?:wrong|incorrect|mistaken|false|if|whether|unless|suppose|assum\w+|not\s+(?:think|sure|certain|believe)|nor|neither)"
    r"|n['\u2019]t\s+(?:think|believe))[^\w.!?\n]+(?:(?:that|the|your|our|my|final|correct|right|an?)[^\w.!?\n]+){0,3}$",
    re.IGNORECASE,
)
_NO_ONE = re.compile(r"\b(?:nor|or|neither|and|whether|if|not)[^\w.!?\n]+(?:option[^\w.!?\n]+)?$", re.IGNORECASE)
# The "A:" turn of a few-shot prompt, unless it begins a worked solution or is the first option of a choice.
_TURN = re.compile(r"^A:(?=[ *]*+\S+(?: \S+){0,3}\s*$)", re.MULTILINE)
_TURNS = {
    "choice": re.compile(r"^A:(?=[ *]*\([A-J]\)\W*$)", re.MULTILINE),
    "yes_no": re.compile(r"^A:(?=[ *]*(?:yes|no|true|false)\b)", re.MULTILINE | re.IGNORECASE),
}
_IS_ANSWER = r"\s+(?:is|would\s+be|must\s+be)\s+(?:therefore\s+|thus\s+|clearly\s+|indeed\s+)?"
_BACKWARD = {  # phrases that come after an answer
    "number": re.compile(rf"(\S{{1,20}}(?: \w+)?){_IS_ANSWER}(?:the|our|my)\s+(?:final\s+|correct\s+)?answer\b", re.IGNORECASE),
    "choice": re.compile(
        r"((?:(?<!\w)\([A-Ja-j]\)|\b(?i:option|choice|answer|statement)\s+\(?[A-Ja-j]\b\)?|(?<![\w'])(?:[B-HJ](?=[\s).:])|A(?=\s+is\s)))"
        rf"(?:[.):]\s)?(?:(?!\sis\s)[^.\n]){{0,80}}?){_IS_ANSWER}"
        r"(?:(?:the|our|my)\s+)?(?:only\s+|most\s+|final\s+|single\s+)*(?:correct|right|best|accurate|answer)\b(?!\s?\?)"
    ),
}
_IS_THE = re.compile(r"\s(?:is|be)\s+(?:\w+\s+)?(?:the|our|my|only|most|correct|right|best|accurate)\b")  # a cheap pretest
_LEAD = re.compile(r"(?:[\s:*_`${>]|\\[\[(])+")  # decoration between a marker and an answer
_MATH_LEAD = re.compile(r"(?:[\s:*_`>])+")
_LINE_END = re.compile(r"\n(?!\s*=)|</")  # a calculation may continue on the next line
_LAST_PLACES = 20  # declarations that are read, from the end of the text
# Statements that the answer depends on something: "the answer depends on", "the answer is 1 or 2, depending on", "it depends".
_DEPENDS = (
    r"(?:(?:\w+ly|all|also)\s+)?(?:depends|(?:does|will|would|may|might|can|could)\s+(?:(?:\w+ly|also)\s+)?depend"
    r"|(?:is|was|be)\s+(?:(?:\w+ly|also|very\s+much)\s+)?dependent)\b"
    r"(?!\s+(?:only|solely|(?:up)?on\s+(?:no|nothing|neither)\b))"
)
_OPEN_MATTER = (  # what "it" depends on when "it" means the answer, not the subject of the question
    r"(?:(?:exactly\s+)?(?:what|how|who|whom|whose|which|whether|where|when|if|why)\b"
    r"|(?:the|a|an|one['\u2019]s|your|their|each|many|several|various|other)\s+(?:\w+\s+){0,2}?"
    r"(?:context|situation|circumstances?|case|interpretations?|definitions?|meaning|perspective|viewpoint|point\s+of\s+view"
    r"|reading|person|individual|speaker|reader|people|species|breed|type|kind|state|country|culture|region|factors?|wording"
    r"|question|version|year)\b)"
)
_HEDGE = re.compile(
    r"\banswer(?:\s?\([^()\n]{1,40}\))?(?:\s(?:to|for|of|in|here|choice|option)\b(?:(?!\sis\s)[^.:?!,\n]){0,80}?)?\W{1,6}"
    r"(?:is\W{1,4}(?:that\s+)?)?(?:it\s+)?(?:(?!(?:not|no|never)\b)[a-z]+\s+){0,2}?"
    + _DEPENDS
    + r"|\banswer\b[^.?!\n]{1,60}\bor\b[^.?!\n]{1,60}\bdepending\s+(?:up)?on\b"
    r"|(?:^[^\w\n]*|[.!?:;,*\"'(\u201c\u2014\u2013{]\s*|\b(?:so|but|however|well|then|although|though|because|since|say|think)\s+)"
    r"(?:it|this)\s+" + _DEPENDS + r"(?:[^\w\s]|\s*$|\s+(?:up)?on\s+" + _OPEN_MATTER + r")",
    re.IGNORECASE | re.MULTILINE,
)
_HEDGED_TYPES = ("number", "choice", "yes_no")  # a math expression may depend on a variable, and a span may be any words
_CHOSEN = re.compile(  # phrases that choose an option, such as "I choose (B)"
    r"\b(?:I|we)(?:['\u2019]d|\s+would|\s+will|['\u2019]ll)?\s+(?:choose|select|pick|go\s+with)\s+"
    r"(?:(?:the\s+)?(?:answer|option|choice)\s+)?(?=\(?[A-J]\b)",
    re.IGNORECASE,
)


def truncate_at_next_turn(text: str) -> str:
    """Return `text` up to where the model goes on to invent a next question or chat turn."""
    return _NEXT_QUESTION.split(text, maxsplit=1)[0]


def strip_thinking(text: str) -> str | None:
    """Return the text after the model's thinking, without calculator annotations, or None when the thinking never ends."""
    visible = _ANNOTATION.sub("", _THOUGHT.sub("", text))
    return None if _THINKING.search(visible) else visible


def end_of_hedge(text: str, answer_type: str) -> int:
    """Return where the last statement that the answer depends on something ends, or 0 when there is none.

    Such a statement withdraws earlier declarations: "The answer is yes. However, it depends on the context." Answers of
    type span, math and text are never withdrawn.
    """
    if answer_type not in _HEDGED_TYPES or "epend" not in text:
        return 0
    hedges = (match for match in _HEDGE.finditer(text) if not _denied(text, match))
    return max((match.end() for match in hedges), default=0)


def _denied(text: str, match: re.Match[str]) -> bool:
    return _DENIED.search(text, max(0, match.start() - 60), match.start()) is not None


def declared(text: str, answer_type: str, begin: int = 0) -> Iterator[tuple[str, str]]:
    """Yield (declared answer, text after it) for each declaration after position `begin`, the last one first, at most 20."""
    places: list[tuple[int, str | None]] = [(match.end(), None) for match in _MARKER.finditer(text) if not _denied(text, match)]
    places += latex.boxed(text)
    pattern = _BACKWARD.get(answer_type)
    if pattern and _IS_THE.search(text):
        matches = (
            match for match in pattern.finditer(text) if not _NO_ONE.search(text, max(0, match.start() - 20), match.start())
        )
        places += [(match.end(), match[1]) for match in matches]
    if answer_type == "choice":
        places += [(match.end(), None) for match in _CHOSEN.finditer(text)]
    if not places:
        places = [(match.end(), None) for match in _TURNS.get(answer_type, _TURN).finditer(text)]
    later = [place for place in places if place[0] > begin]
    for start, answer in sorted(later, key=lambda place: place[0])[: -_LAST_PLACES - 1 : -1]:
        if answer is None:
            yield _line(text, start, answer_type)
        else:
            yield answer, " "


def _line(text: str, start: int, answer_type: str) -> tuple[str, str]:
    """Return the line or LaTeX display that follows a marker, and the text after it."""
    lead = (_MATH_LEAD if answer_type == "math" else _LEAD).match(text, start)
    start = lead.end() if lead else start
    ended = _LINE_END.search(text, start)
    end = ended.start() if ended else -1
    if text.startswith(("\\[", "$$"), start):
        closing = text.find("\\]" if text[start] == "\\" else "$$", start + 2)
        end = closing + 2 if closing > 0 else end
    return (text[start:end], text[end:]) if end >= 0 else (text[start:], "")

"""Read the letter of a choice, a yes or no, and short text."""

import re

from lmsi_jax.answers.latex import WORDING

LETTERS = "ABCDEFGHIJ"  # the labels of a question's options that are read, in order

_LETTER = re.compile(
    r"\W*(?:(?:therefore|thus|clearly|definitely|probably|most\s+likely|indeed)\W+)?(?:\\(?:text|textbf|mathrm|mathbf)\s*\{\W*)?"
    r"(?:(?:option|choice|letter|statement)\W+)?(\(?)([A-Ja-j])(?!\w|['\u2019]\w|-\w)(.?)"
)
_LETTERS = (
    re.compile(r"\(([A-Ja-j])\)"),
    re.compile(r"\b(?:option|choice|letter)\W{1,3}([A-Ja-j])\b", re.IGNORECASE),
    re.compile(r"(?:^|[,:;]\s|\b(?:is|be|with|choose|pick)\s)([B-HJ])(?![\w'])"),
)
_ARTICLE = re.compile(r"\s(?!(?:because|since|as|and|or|is|for|so|but|with|not)\b)[a-z]")
_SECOND_LETTER = re.compile(r"\W*(?:,|/|&|or|and|,\s*(?:or|and))\s*(?:\(?[A-Ja-j]\)|(?:option\s)?[A-J](?![\w']))")
_NOT = re.compile(r"\W*(?:not|between|either|neither|none|all)\b", re.IGNORECASE)
_YES_NO = re.compile(
    r"\W*(?:(?:probably|likely|most\s+likely|definitely|clearly|certainly|simply|therefore|thus|that|a|an|is|it's|it|also|definite|clear"
    r"|firm|resounding|simple)\W+)*"
    r"(?:(yes|no|true|false)\b(?!\s(?:one|evidence|such|longer|way|information|more|idea|doubt|problem|that|if|and\s+no|or\s+no)\b)"
    r"|(entail\w*|contradict\w*|neutral)\b)",
    re.IGNORECASE,
)
_UNKNOWN = re.compile(
    r"(?!\W*not\s+unknown)[^.,;\n]{0,40}?(?:\b(?:not|im|isn't|never)\s?possible\s+to\s+(?:tell|know|say|determine|infer|conclude|answer|be\s+sure)"
    r"|\b(?:can\s?not|can['\u2019]t|could\s?n[o']t)\s+(?:be\s+)?"
    r"(?:tell|told|know|known|say|said|determined?|inferr?(?:ed)?|conclude[d]?|answer(?:ed)?)"
    r"|\bunknown\b|\bundetermined\b|\bindeterminate\b|\binconclusive\b"
    r"|\b(?:not\s+(?:have\s+)?enough|insufficient)\s+(?:information|context|evidence|data))",
    re.IGNORECASE,
)
_VERDICT = {"true": "yes", "false": "no", "entail": "yes", "contra": "no", "neutra": "unknown"}
_BOTH = re.compile(r"\W*(?:and|or|/)\W*(?:yes|no|true|false)\b", re.IGNORECASE)
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")


def choice(answer: str) -> str | None:
    """Return the letter of the one option that `answer` names, in upper case, or None when it does not name one."""
    if _NOT.match(answer):
        return None
    match = _LETTER.match(answer)
    if match and not match[1] and _is_word(match, answer):
        match = None
    if match is None:
        sentence = re.split(r"\.\s", answer, maxsplit=1)[0]
        pattern = next((pattern for pattern in _LETTERS if pattern.search(sentence)), None)
        letters = {letter.upper() for letter in pattern.findall(sentence)} if pattern else set()
        return letters.pop() if len(letters) == 1 else None
    if _SECOND_LETTER.match(answer, match.end(2) + (match[3] == ")")):
        return None
    return match[2].upper()


def _is_word(match: re.Match[str], answer: str) -> bool:
    """Return whether a letter without parentheses is a word ("a dog", "I think") and not an option."""
    if match[2] == "I" or (match[2].islower() and match[3] not in ("", ")", ".", ":", ",", "*", "}", "$")):
        return match[3] not in (")", ":", "")
    return match[2] == "A" and _ARTICLE.match(answer, match.end(2)) is not None


def yes_no(answer: str) -> str | None:
    """Return "yes", "no" or "unknown" for what `answer` begins with, or None when it begins with none or several of them."""
    answer = WORDING.sub(r"\1", answer)
    if (match := _YES_NO.match(answer)) is None:
        return "unknown" if _UNKNOWN.match(answer) else None
    if _BOTH.match(answer, match.end()):
        return None
    word = (match[1] or match[2][:6]).lower()
    return _VERDICT.get(word, word)


def text(answer: str) -> str | None:
    """Return `answer` in lower case, without articles and most punctuation, or None when nothing is left."""
    words = _ARTICLES.sub(" ", re.sub(r"[^\w\s.%/-]", " ", answer.lower()))
    return " ".join(words.split()).strip(" .") or None

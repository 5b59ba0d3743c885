"""Which words an access-map tag takes: one table for the two listings and for checking a map.

Source: spec chapter maps, sections 14 and 15.
"""

from __future__ import annotations

import re
from enum import Enum

import attrs


class Keys(Enum):
    """What may follow a tag."""

    CLIENT = "client"
    NAME = "name"
    MAIL = "mail"
    ANY = "any"
    CLIENT_AND_MAIL = "client and mail"
    MAIL_AND_MAIL = "mail and mail"


NUMBER = "^[0-9]+$"
SIGNED_NUMBER = "^-?[0-9]+$"
SIZE = "^-?[0-9]+[KMGkmg]?$"
LIMIT = r"^(-[0-9]+|-?[0-9]+\/([0-9]*[WDHMSwdhms]|[0-9]+[WDHMSwdhms]?))$"
SOME = ".+"
ANYTHING = ".*"

_REFUSALS = ("OK", "OK+AV", "DISCARD", "REJECT", "IREJECT", "TEMPFAIL", "SAVE", "TRAP", "NEXT", "SKIP", "TAG")
_CLIENT = (*_REFUSALS, "CONTENT")
_SENDER = (*_REFUSALS, "SPF-PASS", "POLICY-OK", "POLICY-PASS", "PROTOCOL")
_RECIPIENT = (*(word for word in _REFUSALS if word != "IREJECT"), "PROTOCOL")


@attrs.frozen
class Rule:
    """One tag: what its keys hold, and its words, of which those of ``PATTERNS`` are expressions."""

    tag: str
    keys: Keys
    words: tuple[str, ...]

    @property
    def pattern(self) -> re.Pattern[str] | None:
        """Texts it takes besides words."""
        found = next((word for word in self.words if word in PATTERNS), None)
        return None if found is None else re.compile(found, re.ASCII | re.DOTALL)

    @property
    def plain(self) -> tuple[str, ...]:
        return tuple(word for word in self.words if word not in PATTERNS)


PATTERNS = (NUMBER, SIGNED_NUMBER, SIZE, LIMIT, SOME, ANYTHING)

_LISTS = tuple(f"{what}-{side}:" for what in ("filename", "mimetype", "top-mimetype", "archname") for side in ("connect", "from", "to"))


def _kind(tag: str) -> Keys:
    return Keys.CLIENT if tag.endswith(("connect:", "pause:")) else Keys.MAIL


def _rules(tags: tuple[str, ...], words: tuple[str, ...]) -> tuple[Rule, ...]:
    return tuple(Rule(tag, _kind(tag), words) for tag in tags)


RULES: tuple[Rule, ...] = (
    Rule("connect:", Keys.CLIENT, (*_CLIENT, "PROTOCOL")),
    Rule("helo:", Keys.NAME, _CLIENT),
    Rule("from:", Keys.MAIL, _SENDER),
    Rule("connect:from:", Keys.CLIENT_AND_MAIL, _SENDER),
    Rule("to:", Keys.MAIL, _RECIPIENT),
    Rule("connect:to:", Keys.CLIENT_AND_MAIL, _RECIPIENT),
    Rule("from:to:", Keys.MAIL_AND_MAIL, _RECIPIENT),
    Rule("body:", Keys.ANY, ("OK", "REJECT", "SAVE", "TRAP")),
    *_rules(("rate-connect:", "concurrent-connect:", "grey-connect:", "grey-to:"), (NUMBER, "NEXT", "SKIP")),
    *_rules(("null-rate-to:",), (SIGNED_NUMBER, "NEXT", "SKIP")),
    *_rules(("greetpause:", "commandpause:"), (NUMBER, "NEXT", "SKIP")),
    *_rules(("length-connect:", "length-from:", "length-to:"), (SIZE, "NEXT", "SKIP")),
    *_rules(("msg-limit-connect:", "msg-limit-from:", "msg-limit-to:"), (LIMIT, "NEXT", "SKIP")),
    Rule("tls-connect:", Keys.CLIENT, ("SKIP", "REQUIRE", "VERIFY")),
    *_rules(("tls-from:", "tls-to:"), ("REQUIRE", "VERIFY")),
    *_rules(("spamd:",), (SOME,)),
    *_rules(("emew:", *_LISTS), (ANYTHING,)),
)

BY_TAG = {rule.tag: rule for rule in RULES}

EVERYWHERE = ("NEXT", "SKIP")
"""Words that every tag takes."""

WORDS = (
    "OK",
    "OK+AV",
    "CONTENT",
    "PROTOCOL",
    "DISCARD",
    "IREJECT",
    "NEXT",
    "POLICY-OK",
    "POLICY-PASS",
    "REJECT",
    "REQUIRE",
    "SAVE",
    "SKIP",
    "SPF-PASS",
    "TAG",
    "TEMPFAIL",
    "TRAP",
    NUMBER,
    SIGNED_NUMBER,
    SIZE,
    LIMIT,
    SOME,
    "VERIFY",
    ANYTHING,
)

_FIRST_OF_A_WORD = ("connect:", "helo:", "from:", "to:", "connect:from:", "connect:to:", "from:to:", "body:", "concurrent-connect:")
"""The listing by words names these tags in this order, and the others as they stand in RULES."""


def tag_words() -> list[str]:
    """Lines of ``+access-tag-words``."""
    return [f"/{rule.tag}/ /{'|'.join(rule.words)}/" for rule in RULES]


def word_tags() -> list[str]:
    """Lines of ``+access-word-tags``."""
    order = [*_FIRST_OF_A_WORD, *(rule.tag for rule in RULES if rule.tag not in _FIRST_OF_A_WORD)]
    lines = []
    for word in WORDS:
        tags = [SOME] if word in EVERYWHERE else [tag for tag in order if word in BY_TAG[tag].words]
        lines.append(f"/{word}/ /{'|'.join(tags)}/")
    return lines

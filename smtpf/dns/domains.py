"""What a domain name is: reserved, below a known top-level domain, and which part of it somebody registered.

Top-level domains and public suffixes come from the Public Suffix List of the ``publicsuffixlist`` package; two options
replace its lists of one-level and two-level suffixes. Source: spec chapters filters-envelope, 8 and 16.3;
filters-content, 12.3.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import publicsuffixlist

from smtpf.dns.wire import plain_name
from smtpf.settings.option import Text

if TYPE_CHECKING:
    from smtpf.settings.store import Settings

TLD_LEVEL_ONE_FILE = Text(
    "tld-level-one-file",
    "",
    "A file of top-level domains, separated by white space and without leading dot, used in place of the built-in ones.",
    choices="file path; empty = built-in",
    runtime=False,
    area="tld",
)
TLD_LEVEL_TWO_FILE = Text(
    "tld-level-two-file",
    "",
    "A file of two-level suffixes under which anybody registers names, such as co.uk, used in place of the built-in ones.",
    choices="file path; empty = built-in",
    runtime=False,
    area="tld",
)

_HELO_RESERVED = frozenset(["test", "example", "invalid", "localhost", "localdomain", "home", "onion", "alt", "internal"])
_RESERVED = _HELO_RESERVED | {"local", "lan"}
_SECOND_LEVEL_EXAMPLE = re.compile(r"(?:^|[^a-z0-9-])example\.[^.]+\Z")
_REVERSE_TREE = re.compile(r"(?:(?:\d{1,3}(?:[-/]\d{1,3})?\.)+in-addr|(?:[0-9a-f]\.)+ip6)\.arpa")
_HOST = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)(?:\.(?!-)[a-z0-9_-]{1,63}(?<!-))*")
_DIGITS = re.compile(r"[0-9]+")


def is_host_name(name: str) -> bool:
    """A plain name that a host can have: letters, digits, hyphens and underscores; not an address (RFC 1123 2.1)."""
    if len(name) > 253 or not _HOST.fullmatch(name):
        return False
    return not name.rpartition(".")[2].isdigit()


def is_reserved(name: str) -> bool:
    """``name``, or the domain of an address, lies in a domain that cannot exist on the public Internet (RFC 2606, RFC 6761).

    A name without dot is not reserved.
    """
    return _reserved(name, _RESERVED)


def is_reserved_helo(name: str) -> bool:
    """``is_reserved`` for a HELO argument: machines of a local network may say .local and .lan."""
    return _reserved(name, _HELO_RESERVED)


def _reserved(name: str, tops: frozenset[str]) -> bool:
    plain = plain_name(name.rpartition("@")[2])
    _, dot, top = plain.rpartition(".")
    if not dot:
        return False
    if top == "arpa":
        return not _REVERSE_TREE.fullmatch(plain)
    return top in tops or _SECOND_LEVEL_EXAMPLE.search(plain) is not None


class Domains:
    """Knows public suffixes. Methods take names in any case, with or without final dot, in U-label or A-label form."""

    def __init__(self, level_one: Iterable[str] | None = None, level_two: Iterable[str] | None = None) -> None:
        """``level_one`` and ``level_two`` replace the built-in suffixes of one and of two labels."""
        source = None
        if level_one is not None or level_two is not None:
            source = _rules(level_one, level_two)
        self._list = publicsuffixlist.PublicSuffixList(source, accept_unknown=False)

    @classmethod
    def from_settings(cls, settings: Settings) -> Domains:
        """As the options say; reads files. Raises OSError."""
        one, two = (settings[option] for option in (TLD_LEVEL_ONE_FILE, TLD_LEVEL_TWO_FILE))
        return cls(*(Path(path).read_text("utf-8", "replace").split() if path else None for path in (one, two)))

    def adopt(self, fresh: Domains) -> None:
        """Know from now on what ``fresh`` knows: everybody who holds this object follows."""
        self._list = fresh._list

    def suffix(self, name: str) -> str | None:
        """The longest known public suffix that ``name`` ends with (``co.uk``), None when its top-level domain is unknown."""
        plain = plain_name(name)
        if not plain or plain.startswith(".") or ".." in plain:
            return None
        found: str | None = self._list.publicsuffix(plain)
        return found

    def known(self, name: str) -> bool:
        """The top-level domain of ``name`` exists."""
        return self.suffix(name) is not None

    def is_suffix(self, name: str) -> bool:
        """``name`` is nothing but a public suffix."""
        return self.suffix(name) == plain_name(name)

    def registered(self, name: str) -> str | None:
        """The suffix and one label more (``example.co.uk``); None for an unknown or bare suffix."""
        plain = plain_name(name)
        suffix = self.suffix(plain)
        if suffix is None or suffix == plain:
            return None
        label = plain[: -len(suffix) - 1].rpartition(".")[2]
        return f"{label}.{suffix}"

    def testable(self, host: str) -> bool:
        """An IP address, or a name with a label left of a known suffix."""
        return is_address(host) or self.registered(host) is not None

    def ptr_suffix(self, name: str) -> str:
        """What the mail hosts of one site have in common: ``name`` without its first label, or all of it when little would be left."""
        rest = name.partition(".")[2]
        if "." not in rest or self.is_suffix(rest):
            return name
        return rest

    def compacted(self, name: str) -> str:
        """``name`` with each run of digits left of the registered domain replaced by ``#``."""
        registered = self.registered(name)
        if registered is None:
            return name
        at = len(name) - len(registered)
        return _DIGITS.sub("#", name[:at]) + name[at:]


def is_address(host: str) -> bool:
    """``host`` is an IPv4 or IPv6 address, brackets allowed."""
    text = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if text[:5].lower() == "ipv6:":
        text = text[5:]
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _rules(level_one: Iterable[str] | None, level_two: Iterable[str] | None) -> list[str]:
    """The lines of the public suffix list with one or two of its levels exchanged."""
    replaced = {level for level, given in ((1, level_one), (2, level_two)) if given is not None}
    lines = []
    for line in Path(publicsuffixlist.PSLFILE).read_text("utf-8").splitlines():
        rule = line.strip()
        if rule and not rule.startswith("//") and rule.lstrip("!").count(".") + 1 not in replaced:
            lines.append(rule)
    for given in (level_one, level_two):
        lines.extend(plain_name(name.strip(".")) for name in given or ())
    return lines

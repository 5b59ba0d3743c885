"""Reading a map the way a careful postmaster would: is every key, value, word, number and host one that can ever work?

A running node skips what it does not understand; this says so beforehand, with the line and the nearest name that is known.
Source: spec chapter maps, sections 7, 11, 15 and 18.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from difflib import get_close_matches
from pathlib import Path

import attrs

from smtpf.maps import keys, patterns
from smtpf.maps.hosts import parse_host
from smtpf.maps.opening import parse_specification
from smtpf.maps.routes import TLS_WORDS
from smtpf.maps.source import MapError
from smtpf.maps.sqlite import ALL, connect
from smtpf.maps.tags import BY_TAG, EVERYWHERE, Keys, Rule
from smtpf.maps.text import Line, Text, parse_text

ATTRIBUTES = ("FORWARD", "RCPT", "RELAY", "TLS")
ROUTE = "route:"

_NETWORK_KEY = re.compile(r"[0-9]{1,3}(\.[0-9]{1,3}){0,3}", re.ASCII)
_GROUPS_KEY = re.compile(r"[0-9a-f]{1,4}(:[0-9a-f]{1,4}){0,7}", re.ASCII)
_ONE_GROUP = re.compile(r"[0-9a-f]{4}", re.ASCII)
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?", re.ASCII)
_UNQUALIFIED = re.compile(r"[^\s@.]+")
_LOCAL = re.compile(r'("[^"]*"|[^\s"@][^\s@]*|[^\s]+)')


@attrs.frozen
class Complaint:
    """What is wrong with a line."""

    number: int
    text: str


def check_map(option: str, table: str) -> list[str]:
    """Complaints about the map of an option, as ``PLACE:LINE: text``; a map that cannot be opened is one complaint."""
    if not option.strip():
        return [] if table == "access" else ["route-map: no map is given"]
    specification = parse_specification(option)
    if isinstance(specification, MapError):
        return [f"{option}: {specification.reason}"]
    if table == "access" and specification.kind == "text":
        return [f"{option}: write file! in place of text!"]
    if specification.kind == "socketmap":
        return []
    try:
        text = _database(specification.path) if specification.kind == "sql" else parse_text(specification.path.read_bytes())
    except (OSError, ValueError, sqlite3.Error) as error:
        return [f"{option}: {error}"]
    return told(specification.location, check_text(text, table))


def _database(path: Path) -> Text:
    connection = connect(path)
    try:
        rows = connection.execute(f"{ALL} ORDER BY rowid").fetchall()
    finally:
        connection.close()
    return Text(tuple(Line(number, str(key), "" if value is None else str(value)) for number, (key, value) in enumerate(rows, 1)))


def told(place: str, complaints: Iterable[Complaint]) -> list[str]:
    """The complaints with their place in front."""
    return [f"{place}:{complaint.number}: {complaint.text}" for complaint in complaints]


def check_text(text: Text, table: str) -> list[Complaint]:
    """Complaints about the records of ``access`` or ``route``, in the order of their lines."""
    found = [Complaint(number, "line begins with a blank and has no key") for number in text.keyless]
    check: Callable[[Line], Iterator[str]] = check_route_line if table == "route" else check_access_line
    seen: dict[str, int] = {}
    for line in text.lines:
        found += [Complaint(line.number, message) for message in check(line)]
        key = keys.normal_key(line.key)
        if key in seen:
            found.append(Complaint(line.number, f'key "{line.key}" stands already in line {seen[key]}; the last one counts'))
        seen[key] = line.number
    return sorted(found, key=lambda complaint: complaint.number)


def check_access_line(line: Line) -> Iterator[str]:
    """What is wrong with a record of the access map."""
    folded = keys.normal_key(line.key)
    rule, parts = _split_access(folded)
    if rule is None:
        yield unknown("tag", _tag_of(folded), BY_TAG)
        return
    yield from _check_parts(line.key, rule, parts)
    if not line.value:
        if rule.tag != "emew:":
            yield f'key "{line.key}" has no value and counts as absent'
        return
    yield from _check_value(line.value, rule)


def check_route_line(line: Line) -> Iterator[str]:
    """What is wrong with a record of the route map."""
    folded = keys.normal_key(line.key)
    if not folded.startswith(ROUTE):
        yield unknown("tag", _tag_of(folded), (ROUTE,))
        return
    part = folded[len(ROUTE) :]
    if part not in ("local", "__counts__") and (not part or not (_is_client(part) or _is_mail(part))):
        yield f'key "{line.key}" is neither address, network, domain nor mailbox'
    if part == "__counts__":
        return
    yield from _check_attributes(line.value)


def unknown(what: str, written: str, known: Iterable[str]) -> str:
    """``unknown tag "conect:", did you mean "connect:"?``"""
    near = get_close_matches(written.lower(), {name.lower(): name for name in known}, 1, 0.5)
    names = {name.lower(): name for name in known}
    return f'unknown {what} "{written}"' + (f', did you mean "{names[near[0]]}"?' if near else "")


def _tag_of(key: str) -> str:
    tag, colon, _ = key.partition(":")
    return tag + colon


def _split_access(key: str) -> tuple[Rule | None, tuple[str, ...]]:
    """The rule of a key, and the one or two texts that it combines."""
    tag = _tag_of(key)
    rest = key[len(tag) :]
    if tag in ("connect:", "from:"):
        for second in ("from:", "to:"):
            rule = BY_TAG.get(tag + second)
            outer, joint, inner = rest.rpartition(f":{second}")
            if rule is not None and joint:
                return rule, (outer, inner)
    return BY_TAG.get(tag), (rest,)


def _check_parts(key: str, rule: Rule, parts: tuple[str, ...]) -> Iterator[str]:
    if rule.keys is Keys.CLIENT_AND_MAIL:
        if not _is_client(parts[0]):
            yield f'key "{key}": "{parts[0]}" is neither address, network nor domain'
        if parts[1] and not _is_mail(parts[1]):
            yield f'key "{key}": "{parts[1]}" is neither domain nor mailbox'
        elif not parts[1] and rule.tag != "connect:from:":
            yield f'key "{key}" lacks its recipient'
    elif rule.keys is Keys.MAIL_AND_MAIL:
        if parts[0] and not (_is_mail(parts[0]) or _UNQUALIFIED.fullmatch(parts[0])):
            yield f'key "{key}": "{parts[0]}" is neither domain nor mailbox'
        if not _is_mail(parts[1]):
            yield f'key "{key}": "{parts[1]}" is neither domain nor mailbox'
    elif parts[0] and not _KEY_FORMS[rule.keys](parts[0]):
        yield f'key "{key}": "{parts[0]}" is not {_KEY_NAMES[rule.keys]}'


def _is_network(text: str) -> bool:
    if _NETWORK_KEY.fullmatch(text):
        return all(int(part) < 256 for part in text.split("."))
    if "::" in text:
        return keys.parse_address(text) is not None
    return ":" in text and _GROUPS_KEY.fullmatch(text) is not None


def _is_domain(text: str) -> bool:
    if text.startswith("["):
        return keys.parse_address(text) is not None and text.endswith("]")
    labels = text.split(".")
    return len(text) < 254 and all(map(_LABEL.fullmatch, labels)) and not labels[-1].isdigit()


def _is_client(text: str) -> bool:
    # One group alone, such as "2001", is a network too.
    return _is_network(text) or _is_domain(text) or _ONE_GROUP.fullmatch(text) is not None


def _is_mail(text: str) -> bool:
    local, at, domain = text.rpartition("@")
    if not at:
        return _is_domain(domain)
    return _LOCAL.fullmatch(local) is not None and (not domain or _is_domain(domain))


_KEY_FORMS: dict[Keys, Callable[[str], bool]] = {
    Keys.CLIENT: _is_client,
    Keys.NAME: _is_domain,
    Keys.MAIL: _is_mail,
    Keys.ANY: lambda text: _is_client(text) or _is_mail(text),
}
_KEY_NAMES = {
    Keys.CLIENT: "an address, network or domain",
    Keys.NAME: "a domain or address literal",
    Keys.MAIL: "a domain or mailbox",
    Keys.ANY: "an address, network, domain or mailbox",
}


def _check_value(value: str, rule: Rule) -> Iterator[str]:
    parsed = patterns.parse(value)
    for item in parsed.items:
        if item.fault is not None:
            yield item.fault.format % (*item.reason, item.rest)
        else:
            yield from _check_action(item.action, rule)
    if parsed.default is not None:
        yield from _check_action(parsed.default, rule)
        behind = parsed.default_rest[patterns.read_action(parsed.default_rest, 0)[1] :].strip()
        if behind:
            yield f'"{behind}" behind the default is never read; quote a text that has blanks'


def _check_action(action: str, rule: Rule) -> Iterator[str]:
    word, colon, parameter = action.partition(":")
    plain = rule.plain
    if word in plain or word in EVERYWHERE or word == "DUNNO":
        if word in ("SAVE", "TRAP") and colon and not parameter.startswith("/"):
            yield f'{word}: "{parameter}" is not an absolute path'
        if word == "VERIFY" and parameter and not parameter.startswith(("CN=", ";")):
            yield f'VERIFY: "{parameter}" does not begin with CN='
        return
    pattern = rule.pattern
    if pattern is not None and pattern.fullmatch(action):
        return
    if pattern is not None:
        yield f'"{action}" is not a value of {rule.tag}'
    else:
        yield unknown(f"word for {rule.tag}", word, plain)


def _check_attributes(value: str) -> Iterator[str]:
    meant = 0
    for attribute in value.split(";"):
        written = attribute.strip(" \t")
        if not written:
            continue
        word, colon, hosts = written.partition(":")
        if word == "RELAY":
            meant += 1
            if colon:
                yield "RELAY takes no hosts"
        elif word not in ATTRIBUTES:
            yield unknown("attribute", word, ATTRIBUTES)
        elif word == "TLS":
            if hosts.strip(" \t") not in TLS_WORDS:
                yield unknown("word for TLS:", hosts.strip(" \t"), TLS_WORDS)
        elif not colon:
            yield f"{word} needs a colon and hosts"
        else:
            names = [name for name in re.split(r"[, \t]+", hosts) if name]
            if not names:
                yield f"{word}: names no host"
            for name in names:
                if parse_host(name) is None:
                    yield f'{word}: "{name}" is not a host, host:port, address or socket'
            meant += 1
    if not meant:
        yield "no FORWARD, RCPT or RELAY"

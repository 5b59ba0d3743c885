"""``smtpf stat``, ``conn``, ``kill``, ``option``, ``verbose``, ``info``, ``lkey`` and ``reload``: a running node from the shell.

Each gives one administration command and prints the answer, as text or, with ``--json``, for programs. Exit status 0 done,
1 refused or not reached, 64 not understood.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import attrs

from smtpf.admin.client import NotReached, Reply, connect
from smtpf.settings.catalogue import instances
from smtpf.settings.language import EXIT_USAGE, load
from smtpf.settings.option import Option
from smtpf.settings.process_options import RUN_PID_FILE
from smtpf.settings.store import Settings
from smtpf.settings.words import cut

FAILED = 1
_COUNTER = re.compile(r"(\d{3}) (\S+)=(.*)")
_VALUE = re.compile(r"(\d+) ([\d.]+)%")
_SESSION = re.compile(r"(\S+) (\S+) (.*?) ?\[([^\]]*)\] (\d+) (\d+) (\d+)")
_FIELD = re.compile(r'([^=\s]+)="?(.*?)"?')


@attrs.frozen
class Call:
    """A command line behind its first word."""

    words: tuple[str, ...]
    json: bool = False
    socket: str = ""
    settings: Settings = attrs.field(factory=Settings)


class Usage(Exception):
    """The command line makes no sense."""


def read_call(words: Sequence[str], flags: Sequence[str] = ()) -> tuple[Call, dict[str, str]]:
    """The words behind a command: ``--json``, ``--socket=PATH``, ``file=PATH``, the tool's own ``flags``, then the rest. Raises Usage.

    A flag that ends in ``=`` takes a value. The second part of the answer has the own flags that were given.
    """
    rest = list(words)
    given: dict[str, str] = {}
    as_json, path, file = False, "", ""
    while rest and (rest[0].startswith("--") or rest[0].startswith("file=")):
        word = rest.pop(0)
        name, mark, value = word.partition("=")
        if word == "--json":
            as_json = True
        elif name == "file":
            file = value
        elif (name in ("--socket", "--file") or f"{name}=" in flags) and (mark or rest):
            value = value if mark else rest.pop(0)
            if name == "--socket":
                path = value
            elif name == "--file":
                file = value
            else:
                given[name] = value
        elif word in flags:
            given[word] = ""
        else:
            raise Usage(word)
    settings = load([f"file={file}"] if file else [], instances(Option)).settings
    return Call(tuple(rest), as_json, path, settings), given


def run(words: Sequence[str], usage: str, verb: str, form: Callable[[Reply], Any], takes: Callable[[tuple[str, ...]], bool]) -> int:
    """Give ``verb`` with the words as argument; print the answer."""
    try:
        call, _ = read_call(words)
        if not takes(call.words):
            raise Usage
    except Usage:
        return told(f"usage: {usage}", EXIT_USAGE)
    try:
        with connect(call.settings, call.socket) as node:
            reply = node.ask(" ".join((verb, *call.words)))
    except NotReached as problem:
        return told(f"smtpf: {problem}", FAILED)
    return show(call, reply, form)


def show(call: Call, reply: Reply, form: Callable[[Reply], Any]) -> int:
    """Print ``reply`` as the call asks for. The exit status."""
    if not reply.good:
        return told("\n".join(f"smtpf: {line}" for line in reply.lines), FAILED)
    if call.json:
        print(json.dumps(form(reply), indent=2, ensure_ascii=False))
    else:
        for line in reply.body or reply.lines:
            print(line)
    return 0


def told(text: str, status: int) -> int:
    print(text, file=sys.stderr)
    return status


def stat(words: Sequence[str]) -> int:
    """The counters."""
    return run(words, "smtpf stat [--json] [--socket=PATH] [R|H|W]", "STAT", stat_form, lambda given: len(given) <= 1)


def conn(words: Sequence[str]) -> int:
    """The sessions."""
    return run(words, "smtpf conn [--json] [--socket=PATH]", "CONN", conn_form, lambda given: not given)


def kill(words: Sequence[str]) -> int:
    """Cut a session."""
    return run(words, "smtpf kill [--socket=PATH] SESSION-ID", "KILL", text_form, lambda given: len(given) == 1)


def option(words: Sequence[str]) -> int:
    """Show or change options."""
    usage = "smtpf option [--json] [--socket=PATH] [+name | -name | name=value | name+=value ...]"
    return run([quoted(word) for word in words], usage, "OPTN", option_form, lambda given: True)


def verbose(words: Sequence[str]) -> int:
    """Show or change the verbose flags."""
    return run(words, "smtpf verbose [--json] [--socket=PATH] [+word | -word | word=N ...]", "VERB", verbose_form, lambda given: True)


def info(words: Sequence[str]) -> int:
    """The versions."""
    return run(words, "smtpf info [--json] [--socket=PATH]", "INFO", field_form, lambda given: not given)


def lkey(words: Sequence[str]) -> int:
    """The licence key."""
    return run(words, "smtpf lkey [--json] [--socket=PATH]", "LKEY", field_form, lambda given: not given)


def reload(words: Sequence[str]) -> int:
    """Read options, maps and files again: over the control socket, which tells what came of it, else by SIGHUP."""
    try:
        call, _ = read_call(words)
    except Usage:
        return told("usage: smtpf reload [--json] [--socket=PATH]", EXIT_USAGE)
    from smtpf.admin.control import CONTROL_SOCKET

    if call.socket or call.settings[CONTROL_SOCKET]:
        return run(words, "smtpf reload [--json] [--socket=PATH]", "RELOAD", reload_form, lambda given: not given)
    path = call.settings[RUN_PID_FILE]
    try:
        os.kill(int(Path(path).read_text("ascii")), signal.SIGHUP)
    except (OSError, ValueError) as error:
        return told(f"smtpf: {path}: {getattr(error, 'strerror', None) or error}", FAILED)
    print("the node has been told; what came of it is in its log")
    return 0


def quoted(word: str) -> str:
    """A word of the shell as one word of the option language."""
    name, mark, value = word.partition("=")
    if mark and not word.startswith("--") and any(letter in " \t\"'\\#" for letter in value):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\t", "\\t")
        return f'{name}="{escaped}"'
    return word


def text_form(reply: Reply) -> Any:
    """What was said, as it is."""
    return {"code": reply.code, "text": list(reply.lines)}


def stat_form(reply: Reply) -> Any:
    """The facts of STAT, and the counters with value and percentage of each table."""
    facts: dict[str, Any] = {}
    counters: dict[str, Any] = {}
    for line in reply.body:
        found = _COUNTER.fullmatch(line)
        if found is None:
            name, _, value = line.partition("=" if "=" in line else "/")
            facts[name] = value
            continue
        values = [{"value": int(value), "percent": float(percent)} for value, percent in _VALUE.findall(found[3])]
        counters[found[2]] = values[0] if len(values) == 1 else dict(zip(("runtime", "hourly", "window"), values, strict=False))
    return {**facts, "counters": counters}


def conn_form(reply: Reply) -> Any:
    """Threads, sessions, connections of this second, and each session."""
    head = {name: int(value) for name, value in (pair.split("=") for pair in reply.body[0].split())}
    names = ("id", "state", "client", "address", "age", "idle", "octets")
    sessions = []
    for line in reply.body[1:]:
        found = _SESSION.fullmatch(line)
        if found is not None:
            sessions.append({name: int(value) if name in names[4:] else value for name, value in zip(names, found.groups(), strict=True)})
    return {**head, "sessions": sessions}


def option_form(reply: Reply) -> Any:
    """Options by name: flags as booleans, all others as text."""
    found: dict[str, Any] = {}
    for line in reply.body:
        if line[:1] in "+-":
            found[line[1:]] = line[0] == "+"
            continue
        for word in cut(line):
            name, _, value = word.text.partition("=")
            found[name] = value
    return found


def verbose_form(reply: Reply) -> Any:
    """The level of each word."""
    levels: dict[str, int] = {}
    unknown: list[str] = []
    for line in reply.body:
        if line.startswith("unknown: "):
            unknown = line.split()[1:]
            continue
        for word in line.split():
            name, mark, level = word.partition("=")
            levels[name if mark else word[1:]] = int(level) if mark else int(word[0] == "+")
    return {"words": levels, "unknown": unknown}


def field_form(reply: Reply) -> Any:
    """``NAME="value"`` lines, continued ones joined."""
    joined: list[str] = []
    for line in reply.body:
        if line.startswith("    ") and joined:
            joined[-1] += " " + line.strip()
        else:
            joined.append(line)
    return {found[1]: found[2] for found in map(_FIELD.fullmatch, joined) if found is not None}


def reload_form(reply: Reply) -> Any:
    """Which options changed, and which need a restart."""
    return {
        "changed": [line.partition(": ")[2] for line in reply.body if line.startswith("changed: ")],
        "restart": [line.partition(": ")[2] for line in reply.body if line.startswith("needs restart: ")],
    }

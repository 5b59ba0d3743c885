"""The command ``smtpf``: look at a configuration before it is used, list what the program knows, try it out.

Options as words (``smtpf +help file=old.cf``) do what the program of that name always did, as ``twistd smtpf`` does. Each
sub-command is one function; exit status 0 is success, 1 failure and 64 a command line that makes no sense.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence

from smtpf.filters.extension import extension_modules
from smtpf.journal.message import Message
from smtpf.reply import Reply
from smtpf.settings.catalogue import declared, emitters, instances
from smtpf.settings.language import EXIT_USAGE, load
from smtpf.settings.option import AnyOption, Option
from smtpf.settings.process_options import FILE
from smtpf.settings.store import sort_key
from smtpf.settings.words import assignment
from smtpf.stats.counter import Counter

USAGE = """\
smtpf check [FILE]      read the option file and the maps it names, and tell every error with its line
smtpf list options|messages|replies|counters
                        one tab-separated line for each
smtpf kvmap [-abcdlLnuU] MAP [FILE ...]
                        build a compiled map from standard input, print one (-d), check a text (-c)
smtpf stat|conn|kill|option|verbose|cache|info|lkey|reload ...
                        ask or change a running node; `--json` for programs (docs/operate.md)
smtpf sign-licence KEY FIELDS
                        make a licence key file
smtpf demo [--work DIR] try it out on 127.0.0.1:2525, with a mail server of its own behind it
smtpf WORDS             run as twistd smtpf does; +help prints all options, +version the versions
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv`` (without program name). The exit status."""
    try:
        status = _run(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader, such as head, has seen enough. Without this the interpreter would complain at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    return status


def _run(words: list[str]) -> int:
    if words and assignment(words[0]) is not None:
        from smtpf.running import run_node

        return run_node(words)
    if not words or words[0] in ("help", "--help"):
        print(USAGE, end="", file=sys.stdout if words else sys.stderr)
        return 0 if words else EXIT_USAGE
    command = COMMANDS.get(words[0])
    if command is None:
        print(f"smtpf: there is no command {words[0]!r}\n\n{USAGE}", end="", file=sys.stderr)
        return EXIT_USAGE
    return command(words[1:])


def check(words: Sequence[str]) -> int:
    """Every problem of an option file and of the maps it names, one a line. 1 when there is anything to mend."""
    from smtpf.maps.access import ACCESS_MAP
    from smtpf.maps.check import check_map
    from smtpf.maps.routes import ROUTE_MAP

    if len(words) > 1:
        return _usage("smtpf check [FILE]")
    loaded = load([f"file={words[0]}"] if words else [], instances(Option, extension_modules()))
    settings = loaded.settings
    complaints = [
        f'{settings[FILE]}: error: "{option.name}" does not take {settings.text(option)!r}'
        for option in settings.options
        if not option.fits(settings[option])
    ]
    complaints += [*check_map(settings[ACCESS_MAP], "access"), *check_map(settings[ROUTE_MAP], "route")]
    for line in (*loaded.problems, *complaints):
        print(line)
    errors = sum(problem.is_error for problem in loaded.problems) + len(complaints)
    print(f"{settings[FILE]}: {_count(errors, 'error')}, {_count(len(loaded.problems) + len(complaints) - errors, 'warning')}")
    return 1 if errors else 0


def list_catalogue(words: Sequence[str]) -> int:
    """One of the catalogues as tab-separated lines without a header."""
    if len(words) != 1 or words[0] not in CATALOGUES:
        return _usage(f"smtpf list {'|'.join(CATALOGUES)}")
    for row in CATALOGUES[words[0]]():
        print("\t".join(" ".join(cell.split()) if cell else "" for cell in row))
    return 0


def options() -> list[list[str]]:
    """name, kind, default, choices, runtime, since, area, meaning. Old names follow the option they stand for."""
    return [row for option in sorted(instances(Option, extension_modules()), key=sort_key) for row in _option_rows(option)]


def messages() -> list[list[str]]:
    """number, level, format, modules that emit it, explanation."""
    found = [message for _, _, message in declared(Message, extension_modules())]
    emitting = emitters(found)
    found.sort(key=lambda message: (message.number, message.format))
    return [[f"{each.number:03d}", each.level.name, each.format, ",".join(emitting[id(each)]), each.explanation] for each in found]


def replies() -> list[list[str]]:
    """number, format, meaning."""
    found = sorted((reply for _, _, reply in declared(Reply, extension_modules())), key=lambda reply: (reply.number, reply.text))
    return [[str(reply.number), reply.format, reply.meaning] for reply in found]


def counters() -> list[list[str]]:
    """name, group, kind, since, meaning."""
    found = sorted(
        (counter for _, _, counter in declared(Counter, extension_modules())), key=lambda counter: (counter.group.value, counter.name)
    )
    return [[each.name, each.group.value, each.kind.value, each.since, each.meaning] for each in found]


def kvmap(words: Sequence[str]) -> int:
    """Build, print or check a compiled map."""
    from smtpf.maps.kvmap import main as build

    return build(words)


def running(name: str) -> Callable[[Sequence[str]], int]:
    """The command ``name`` for a running node."""

    def ask(words: Sequence[str]) -> int:
        from smtpf.admin import tools

        command: Callable[[Sequence[str]], int] = getattr(tools, name)
        return command(words)

    return ask


def cache(words: Sequence[str]) -> int:
    """Look into the cache, or change it."""
    from smtpf.admin.cache_tool import main as use

    return use(words)


def sign_licence(words: Sequence[str]) -> int:
    """Make a licence key file."""
    from smtpf.admin.licence_signer import main as sign

    return sign(words)


def demo(words: Sequence[str]) -> int:
    """Try the program out."""
    from smtpf.demo import main as show

    return show(words)


def _option_rows(option: AnyOption) -> list[list[str]]:
    default = "none" if option.kind == "action" else option.default or '""'
    runtime = "yes" if option.runtime else "no"
    facts = [option.kind, default, option.choices, runtime, option.since, option.area]
    old = [[name, *facts, f"Old name of {option.name}."] for name in (*option.aliases, *option.fallback_aliases)]
    return [[option.name, *facts, option.meaning], *old]


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _usage(text: str) -> int:
    print(f"usage: {text}", file=sys.stderr)
    return EXIT_USAGE


CATALOGUES: dict[str, Callable[[], list[list[str]]]] = {
    "options": options,
    "messages": messages,
    "replies": replies,
    "counters": counters,
}
COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "check": check,
    "list": list_catalogue,
    "kvmap": kvmap,
    "cache": cache,
    "sign-licence": sign_licence,
    "demo": demo,
    **{name: running(name) for name in ("stat", "conn", "kill", "option", "verbose", "info", "lkey", "reload")},
}


if __name__ == "__main__":
    sys.exit(main())

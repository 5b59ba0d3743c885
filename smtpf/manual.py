"""The reference pages of the manual, made from the declarations: ``python -m smtpf.manual docs/reference`` writes them.

They cannot drift: a test writes them anew and compares. Options, messages, replies and counters are explained where they are
declared, and nowhere else.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from smtpf.journal.message import Message
from smtpf.reply import Reply
from smtpf.settings.catalogue import declared, emitters, instances
from smtpf.settings.option import AnyOption, Option
from smtpf.settings.store import sort_key
from smtpf.stats.counter import Counter, Group
from smtpf.stats.tables import order

NOTE = "Made from the declarations in the program by `python -m smtpf.manual docs/reference`; do not edit.\n"


def pages() -> dict[str, str]:
    """Text of each page by file name."""
    return {"options.md": options(), "messages.md": messages(), "replies.md": replies(), "counters.md": counters()}


def options() -> str:
    """All options by name."""
    rows = []
    for option in sorted(instances(Option), key=sort_key):
        rows.append((f"`{option.name}`", _default(option), option.choices, "yes" if option.runtime else "restart", option.meaning))
        rows += [(f"`{name}`", "", "", "", f"Old name of `{option.name}`.") for name in (*option.aliases, *option.fallback_aliases)]
    head = "A change takes effect at once where the fourth column says yes (OPTN, `smtpf option`, reload), else after a restart."
    return _page("Options", head, ("option", "default", "takes", "change", "meaning"), rows)


def messages() -> str:
    """All log messages by number."""
    found = [message for _, _, message in declared(Message)]
    sources = emitters(found)
    rows = [
        (
            f"#{each.number:03d}",
            each.level.name,
            f"`{each.format}`",
            _when(each),
            ", ".join(_short(name) for name in sources[id(each)]),
            each.explanation,
        )
        for each in sorted(found, key=lambda message: (message.number, message.format))
    ]
    head = "The third column is the text with its placeholders, the fourth the verbose word that turns the line on."
    return _page("Log messages", head, ("number", "level", "text", "written", "from", "what it means, what to do"), rows)


def replies() -> str:
    """All numbered replies by number."""
    found = {(reply.number, reply.format, reply.meaning) for _, _, reply in declared(Reply)}
    rows = [(f"#{number}", f"`{text}`", meaning) for number, text, meaning in sorted(found)]
    head = "The last placeholder is the session id, by which the log lines of the same session are found."
    return _page("Replies", head, ("number", "reply", "when"), rows)


def counters() -> str:
    """All counters in the order of STAT."""
    rows = [(each.group.value, f"`{each.name}`", each.kind.value, each.meaning) for each in order(instances(Counter))]
    groups = ", ".join(group.value for group in Group)
    return _page("Counters", f"In the order of STAT; groups: {groups}.", ("group", "counter", "kind", "counts"), rows)


def _page(title: str, head: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"# {title}", "", NOTE, head, "", _row(columns), _row(["---"] * len(columns))]
    return "\n".join([*lines, *(_row(row) for row in rows)]) + "\n"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(" ".join(cell.replace("|", "\\|").split()) for cell in cells) + " |"


def _default(option: AnyOption) -> str:
    if option.kind == "action":
        return "action"
    return f"`{option.default}`" if option.default else '`""`'


def _when(message: Message) -> str:
    if message.always:
        return "always"
    return f"{message.word}={message.at_least}" if message.at_least > 1 else message.word


def _short(module: str) -> str:
    return module.removeprefix("smtpf.")


def main(words: Sequence[str] | None = None) -> int:
    """Write the pages into a folder."""
    folder = Path((sys.argv[1:] if words is None else words)[0])
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (folder / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

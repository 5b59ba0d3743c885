"""The command line of ``twistd smtpf``: words of the option language, settings from them, and a service from those.

Everything that needs no running node is settled here: errors in the settings, which are all told on standard error,
and the actions, which print something or send a signal and end. Nothing has been started by then. Source: spec chapter
options, 4 and 5, and operations, 6.1.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from twisted.application.service import MultiService
from twisted.python import usage

from smtpf.filters.extension import extension_modules
from smtpf.journal.journal import Journal
from smtpf.journal.targets import LOG_FORMAT, choose_target, open_target
from smtpf.journal.verbose import VERBOSE, Verbose
from smtpf.process.announce import build_values, version_lines
from smtpf.process.ending import DONE, FAILED, CannotStart
from smtpf.process.instance import Predecessor
from smtpf.process.lifecycle import prepare
from smtpf.process.pidfile import PidFile
from smtpf.process.reactor import install
from smtpf.settings.catalogue import instances
from smtpf.settings.dump import dump
from smtpf.settings.language import Loaded, Problem, load, log_unknown, read_file
from smtpf.settings.option import Action, Option
from smtpf.settings.process_options import (
    ACCESS_TAG_WORDS,
    ACCESS_WORD_TAGS,
    DAEMON,
    HELP,
    INFO,
    QUIT,
    RUN_PID_FILE,
    SERVICE,
    SLOW_QUIT,
    TEST_LICKEY,
    VERSION,
)
from smtpf.settings.store import Settings

REFUSED = 2
"""Exit status of ``service=``."""

TWISTD_PID_FILE = "twistd.pid"
"""Where twistd writes its process id unless told otherwise."""

NodeMaker = Callable[[Settings, tuple[Problem, ...], Any, Callable[[], Loaded]], MultiService]
"""The last argument reads the options again."""


class Options(usage.Options):
    """The words behind ``twistd smtpf``. They are a language of their own, so none is looked at here."""

    synopsis = "[+name | -name | name=value | name+=value] ..."
    longdesc = "Words are options of smtpf; +help prints them all. The option file is named by file=PATH."

    words: tuple[str, ...] = ()
    parent: Any = None
    """The options of twistd itself."""

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        words = tuple(sys.argv[1:] if options is None else options)
        if words == ("--help",):
            self.opt_help()  # type: ignore[no-untyped-call]
        self.words = words
        if self.parent is not None and self.parent["pidfile"] == TWISTD_PID_FILE:
            # smtpf has a pid file of its own; twistd would refuse a second node started in the same folder.
            self.parent["pidfile"] = ""


def makeService(options: Options) -> MultiService:
    """The service for twistd. ``-n`` keeps it in the foreground whatever option ``daemon`` says.

    Going into the background is smtpf's own (``daemon``), so twistd is told not to.
    """
    reactor = install()
    twistd = options.parent
    foreground = bool(twistd["nodaemon"] or twistd["debug"])
    twistd["nodaemon"] = True
    return start(options.words, reactor, foreground=foreground)


def start(words: Sequence[str], reactor: Any, *, foreground: bool = False, make: NodeMaker | None = None) -> MultiService:
    """The service that ``words`` ask for, in the background by now unless ``foreground`` or ``-daemon``.

    Raises SystemExit when an action was asked for or the settings are wrong.
    """
    read = _reader(words, foreground)
    loaded = read()
    act(loaded)
    _prepare(loaded.settings, loaded.problems, reactor)
    return (make or _node_maker())(loaded.settings, loaded.problems, reactor, read)


def _reader(words: Sequence[str], foreground: bool) -> Callable[[], Loaded]:
    """Reads command line and option file, at the start and at each reload; by then the working directory is another."""
    folder = os.getcwd()
    options = instances(Option, extension_modules())

    def read() -> Loaded:
        loaded = load(words, options, read=lambda path: read_file(os.path.join(folder, path)))
        stay = foreground or loaded.settings[TEST_LICKEY]
        return loaded._replace(settings=loaded.settings.evolve({DAEMON: "-"})) if stay else loaded

    return read


def act(loaded: Loaded) -> None:
    """Tell what is wrong with the settings, and do the first action that ends the process. Raises SystemExit unless a node may start."""
    for problem in loaded.problems:
        print(problem, file=sys.stderr)
    action = next((each for each in loaded.actions if each in ENDING), None)
    if action is not None and (action is not HELP or not loaded.exit_status):
        raise SystemExit(ENDING[action](loaded.settings))
    if loaded.exit_status:
        raise SystemExit(loaded.exit_status)


def _prepare(settings: Settings, problems: Sequence[Problem], reactor: Any) -> None:
    """The steps before there is a node, with a log of their own: behind the fork the node opens its own."""
    try:
        target = open_target(reactor, choose_target(settings, settings[DAEMON]), settings[LOG_FORMAT])
    except OSError as error:
        print(f"smtpf: {choose_target(settings, settings[DAEMON])}: {error.strerror}", file=sys.stderr)
        raise CannotStart from error
    journal = Journal(target, Verbose(settings.text(VERBOSE)))
    log_unknown(problems, journal.write)
    try:
        prepare(settings, journal, reactor)
    finally:
        target.close()


def _node_maker() -> NodeMaker:
    # The node needs everything; actions and errors need not wait for it.
    from smtpf.node import make_service

    maker: NodeMaker = make_service
    return maker


def _version(settings: Settings) -> int:
    print("\n".join(version_lines()))
    return DONE


def _info(settings: Settings) -> int:
    for name, value in build_values().items():
        print(f'{name}="{value}"')
    return DONE


def _tag_words(settings: Settings) -> int:
    from smtpf.maps.tags import tag_words

    print("\n".join(tag_words()))
    return DONE


def _word_tags(settings: Settings) -> int:
    from smtpf.maps.tags import word_tags

    print("\n".join(word_tags()))
    return DONE


def _help(settings: Settings) -> int:
    text, path = dump(settings), settings.text(HELP)
    if path[:1] in ("+", "-"):
        print(text, end="")
        return DONE
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        print(f"smtpf: {path}: {error.strerror}", file=sys.stderr)
        return FAILED
    return DONE


def _quit(settings: Settings) -> int:
    return _signal(settings, signal.SIGTERM)


def _slow_quit(settings: Settings) -> int:
    return _signal(settings, signal.SIGQUIT)


def _signal(settings: Settings, signum: int) -> int:
    journal = Journal(lambda entry: print(entry, file=sys.stderr))
    return 0 if Predecessor(PidFile(settings[RUN_PID_FILE], journal), journal).stop(signum) is not None else FAILED


def _service(settings: Settings) -> int:
    print("smtpf: service: there is no Windows service", file=sys.stderr)
    return REFUSED


ENDING: dict[Action, Callable[[Settings], int]] = {
    VERSION: _version,
    INFO: _info,
    ACCESS_TAG_WORDS: _tag_words,
    ACCESS_WORD_TAGS: _word_tags,
    HELP: _help,
    QUIT: _quit,
    SLOW_QUIT: _slow_quit,
    SERVICE: _service,
}
"""The actions that end the process, and what each does; the result is the exit status."""

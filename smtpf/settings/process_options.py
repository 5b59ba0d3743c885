"""Options of the process itself: which file it reads, what it is asked to do at once, as whom and where it runs, and how it listens.

Read by the command line, the node and the server; every other option is declared beside the code that uses it.
Source: spec chapters options (5, 9) and operations (6.1).
"""

from __future__ import annotations

from smtpf.settings.option import Action, Flag, Number, Text, Words

FILE = Text(
    "file",
    "/etc/smtpf/smtpf.cf",
    "The option file, read before the rest of the command line. Inside an option file it only records which file this was. "
    "Empty: no file, just the defaults and the command line.",
    choices='file path; "" = none',
    runtime=False,
    area="process",
)
LENIENT = Flag(
    "lenient",
    False,
    "Start in spite of errors in the option file: each is told as a warning and the setting it concerns is left alone, or of a "
    "list only the unknown words are left out. Meant for the first day after an upgrade.",
    choices="+|-",
    runtime=False,
    since="new",
    area="process",
)
DAEMON = Flag(
    "daemon",
    True,
    "Detach from the terminal and run in the background. Under a service manager say -daemon: the process then stays in the "
    "foreground and logs to standard error.",
    choices="+|-",
    runtime=False,
    area="process",
)
TEST_MODE = Flag("test-mode", False, "Serve one session at a time, for trying things out.", choices="+|-", runtime=False, area="test")

HELP = Action(
    "help",
    meaning="Print every option with its present setting in the form of an option file, and end. help=PATH writes it to that file.",
    choices="help=PATH writes to PATH",
    area="process",
)
VERSION = Action("version", meaning="Print the versions of the program and of what it stands on, and end.", choices="+|-", area="process")
INFO = Action(
    "info",
    meaning='Print versions and build facts as NAME="value" lines for scripts, and end.',
    choices="+|-",
    since="later",
    area="process",
)
ACCESS_TAG_WORDS = Action(
    "access-tag-words",
    meaning="Print each access map tag with the words its right-hand side may hold, and end.",
    choices="+|-",
    since="later",
    area="access",
)
ACCESS_WORD_TAGS = Action(
    "access-word-tags",
    meaning="Print each access map word with the tags it may be used with, and end.",
    choices="+|-",
    since="later",
    area="access",
)
QUIT = Action(
    "quit",
    meaning="Stop the running instance at once, sessions included, and end. The exit status is 1 when there is none.",
    choices="+|-",
    area="process",
)
SLOW_QUIT = Action(
    "slow-quit",
    meaning="Ask the running instance to accept nobody new and to stop after its last session, and end. "
    "The exit status is 1 when there is none.",
    choices="+|-",
    area="process",
)
RESTART = Action(
    "restart",
    meaning="Stop the running instance, if there is one, then start. restart=SECONDS sets how long to wait between two looks "
    "whether it has gone.",
    choices="restart=SECONDS between checks, least 5",
    area="process",
)
RESTART_IF = Action(
    "restart-if",
    meaning="Like restart, but start only when an instance was running.",
    choices="restart-if=SECONDS",
    area="process",
)
SERVICE = Action("service", meaning="Installation as a Windows service, which is not offered.", choices="add|remove", area="process")

ACTION_ORDER = (VERSION, INFO, ACCESS_TAG_WORDS, ACCESS_WORD_TAGS, HELP, QUIT, SLOW_QUIT, SERVICE, RESTART, RESTART_IF)
"""The order in which requested actions are looked at; the first that ends the process wins."""

RUN_USER = Text("run-user", "smtpf", "The user to become once the ports are bound.", choices="user name", runtime=False, area="process")
RUN_GROUP = Text("run-group", "smtpf", "The group to become once the ports are bound.", choices="group name", runtime=False, area="process")
RUN_WORK_DIR = Text("run-work-dir", "/var/tmp", "The working directory of the process.", choices="directory", runtime=False, area="process")
RUN_JAILED = Flag(
    "run-jailed",
    False,
    "Make run-work-dir the root directory of the process. Everything it reads later must then lie below it; "
    "the sandbox of a service manager is usually the better choice.",
    choices="+|-",
    runtime=False,
    area="process",
)
RUN_PID_FILE = Text(
    "run-pid-file",
    "/var/run/smtpf.pid",
    "Where the running instance leaves its process id and holds a lock, so that quit and restart find it. Empty: nowhere.",
    choices='file path; "" = none',
    runtime=False,
    area="process",
)
RUN_OPEN_FILE_LIMIT = Number(
    "run-open-file-limit",
    8192,
    "How many files and sockets the process may have open. It is raised when server-max-threads needs more.",
    choices="descriptors",
    runtime=False,
    area="process",
    least=0,
)
RUN_SAVE_CORE = Flag(
    "run-save-core", False, "Allow a core file to be written after a crash.", choices="+|-", runtime=False, since="later", area="process"
)

INTERFACES = Words(
    "interfaces",
    "[::0]:25;0.0.0.0:25",
    "The addresses to listen on. One that cannot be bound is left out with a log line; with none left the node does not start.",
    choices="IP|host, each [:port]; port 25",
    runtime=False,
    area="server",
    fallback_aliases=("interface-ip",),
)
INTERFACE_NAME = Text(
    "interface-name",
    "",
    "The name this host gives itself in greetings and trace headers. Empty: the host name of the machine.",
    choices="host name",
    runtime=False,
    area="server",
)
SMTP_SERVER_QUEUE = Number(
    "smtp-server-queue",
    20,
    "How many connections may wait at a port until they are accepted.",
    choices="connections",
    runtime=False,
    area="server",
    least=1,
)
SMTP_LINGER = Number(
    "smtp-linger",
    3,
    "How long a closed connection may take to deliver what was still on its way, so that a client can read its last reply. 0: not at all.",
    choices="seconds",
    runtime=False,
    since="later",
    area="server",
    least=0,
)
SERVER_MAX_THREADS = Number(
    "server-max-threads",
    0,
    "Most sessions at the same time. 0: as many as the open file limit carries.",
    choices="workers; 0 = no limit",
    area="server",
)
TEST_LICKEY = Flag(
    "test-lickey",
    False,
    "Check the licence key in the foreground and end, with exit status 0 for a good key and 3 for a bad one.",
    choices="+|-",
    runtime=False,
    area="test",
)

"""Options of the SMTP engine. Source: spec chapter session, 16."""

from __future__ import annotations

import attrs

from smtpf.settings.option import Flag, Level, Number, OptionError, Text, Words

FORCED_ACTIONS = ("temp-fail", "reject", "drop")


@attrs.frozen(eq=False, kw_only=True)
class ForcedAnswer(Text):
    """An action and the command that it is for, such as ``reject,RCPT``; empty for none."""

    def parse(self, text: str) -> str:
        action, _, command = text.partition(",")
        if text and (action.strip().lower() not in FORCED_ACTIONS or not command.strip()):
            raise OptionError(f"takes {'|'.join(FORCED_ACTIONS)}, a comma and a command, not {text!r}")
        return text


SMTP_COMMAND_TIMEOUT = Number(
    "smtp-command-timeout",
    300,
    "Seconds to wait for a client's command or for a next hop's reply.",
    choices="seconds",
    least=1,
    area="smtp",
)
SMTP_COMMAND_TIMEOUT_BLACK = Number(
    "smtp-command-timeout-black",
    30,
    "The same for black-listed clients; at most smtp-command-timeout.",
    choices="seconds, capped by smtp-command-timeout",
    area="smtp",
)
SMTP_DATA_LINE_TIMEOUT = Number(
    "smtp-data-line-timeout", 180, "Seconds to wait for more of a message.", choices="seconds", least=1, area="smtp"
)
SMTP_DISCONNECT_AFTER_DOT = Flag(
    "smtp-disconnect-after-dot",
    False,
    "Log when an unknown client has sent more behind its message before it was answered. A message whose client has left before it was "
    "relayed is never delivered, whatever this option says.",
    area="smtp",
)
SMTP_DROP_AFTER = Number(
    "smtp-drop-after",
    5,
    "Close the connection after so many refusals; 0 switches this off.",
    choices="refusals; 0 = off",
    least=0,
    area="smtp",
)
SMTP_DROP_DOT = Flag("smtp-drop-dot", False, "Close the connection when a message is refused for good.", since="later", area="smtp")
SMTP_DROP_UNKNOWN = Flag(
    "smtp-drop-unknown", False, "Close the connection on an unknown command of a client that is not trusted.", area="smtp"
)
SMTP_ENABLE_ESMTP = Flag("smtp-enable-esmtp", True, "Accept EHLO from everybody; when off only from clients that are known.", area="smtp")
SMTP_HELO_SCHIZO = Number(
    "smtp-helo-schizo", 1, "A second HELO or EHLO with another name is refused (1), refused and dropped (2), or allowed (0).",
    choices="0 off|1 reject|2 drop", least=0, most=2, since="later", area="helo",
)  # fmt: skip
SMTP_REJECT_DELAY = Flag(
    "smtp-reject-delay", False, "Wait before each refusal: 1 second, doubled each time within the session.", area="smtp"
)
SMTP_REJECT_FILE = Text(
    "smtp-reject-file",
    "",
    "File whose lines are added to every permanent refusal.",
    choices='file path; "" = none',
    runtime=False,
    area="smtp",
)
SMTP_SLOW_REPLY = Flag(
    "smtp-slow-reply", False, "Send replies to unknown clients in pieces of ten octets, half a second apart.", area="smtp"
)
SMTP_STRICT_RELAY = Flag(
    "smtp-strict-relay", False, "A relay client may send outbound mail only with a sender domain that has a FORWARD: route.", area="route"
)
SMTP_WELCOME_FILE = Text(
    "smtp-welcome-file", "", "File with the lines of the banner.", choices='file path; "" = built-in text', runtime=False, area="smtp"
)
RATE_THROTTLE = Number(
    "rate-throttle", 20, "Connections per second; when reached, accepting pauses for a second. 0 switches this off.",
    choices="connections per second; 0 = off", least=0, area="rate",
)  # fmt: skip
ONE_DOMAIN_PER_SESSION = Flag(
    "one-domain-per-session", False, "Refuse a second sender domain within one session temporarily.", since="later", area="mail"
)
MAIL_RETEST_CLIENT = Flag(
    "mail-retest-client", False, "Repeat the tests of the client for every message of a session.", since="later", area="client"
)
RFC1652_8BITMIME = Flag("rfc1652-8bitmime", True, "Offer 8BITMIME.", since="later", area="rfc")
RFC3030_CHUNKING = Flag(
    "rfc3030-chunking",
    True,
    "Offer CHUNKING, so that clients may send messages with BDAT. Next hops get them with DATA.",
    since="new",
    area="rfc",
)
RFC6531_SMTPUTF8 = Flag(
    "rfc6531-smtputf8",
    True,
    "Offer SMTPUTF8 beside 8BITMIME, so that addresses may be UTF-8. Such mail goes to next hops that offer it too; for others the "
    "recipient is refused.",
    since="new",
    area="rfc",
)
RFC2920_PIPELINING = Flag("rfc2920-pipelining", True, "Offer PIPELINING; when off, clients that talk early are refused.", area="rfc")
RFC2821_COMMAND_LENGTH = Flag("rfc2821-command-length", False, "Refuse command lines of more than 512 octets.", area="rfc")
RFC2821_LINE_LENGTH = Level(
    "rfc2821-line-length", "-", "Refuse messages with a line of more than 1000 octets (1), or drop the connection there (2).",
    choices="0|1 reject|2 drop", area="rfc",
)  # fmt: skip
RFC2821_STRICT_DOT = Flag("rfc2821-strict-dot", True, "Only CRLF, dot, CRLF ends a message.", area="rfc")
RFC2821_PAD_REPLY_OCTET = Text(
    "rfc2821-pad-reply-octet", "", "Pad replies before HELO to 512 octets with this character.",
    choices='one printable character; "" = off', area="rfc",
)  # fmt: skip
SMTP_AUTH_ENABLE = Flag("smtp-auth-enable", False, "Offer AUTH, answered by the hosts of the route map.", area="smtp-auth")
SMTP_AUTH_TLS = Flag("smtp-auth-tls", True, "Offer AUTH only inside TLS.", since="later", area="smtp-auth")
SMTP_XCLIENT_ENABLE = Flag("smtp-xclient-enable", True, "Offer XCLIENT to localhost and to smtp-xclient-from.", since="later", area="smtp")
SMTP_XCLIENT_FROM = Words(
    "smtp-xclient-from", "", "Peers beside localhost that may use XCLIENT.", choices="addresses, CIDR", since="later", area="smtp"
)
TEST_ON_COMMAND = ForcedAnswer(
    "test-on-command", "", "For tests of other programs: always answer this command with a refusal.",
    choices="temp-fail|reject|drop, a comma, an SMTP command", area="test",
)  # fmt: skip
TEST_PAUSE_AFTER_DOT = Number(
    "test-pause-after-dot", 0, "For tests of other programs: seconds to wait before the reply to the final dot.",
    choices="seconds; 0 = off", least=0, area="test",
)  # fmt: skip

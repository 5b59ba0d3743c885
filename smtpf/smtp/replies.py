"""The replies of the SMTP engine itself. Filters declare theirs beside the code that uses them."""

from __future__ import annotations

from smtpf.reply import Answer, Reply

CLOSING = Reply(247, "221 2.0.0 %s closing connection", meaning="The client said QUIT.")
UNKNOWN_COMMAND = Reply(248, "500 5.5.1 %s command unknown", meaning="No such verb, or one that this client may not use.")
MISSING_ARGUMENT = Reply(249, "501 5.5.2 %s missing argument", meaning="The command needs an argument and came without.")
NOT_IMPLEMENTED = Reply(250, "502 5.5.1 %s not implemented", meaning="A verb of SMTP that smtpf does not offer here.")
OUT_OF_SEQUENCE = Reply(251, "503 5.5.1 %s out of sequence", meaning="The command is not allowed at this point of the session.")
PROTOCOL_ERRORS = (UNKNOWN_COMMAND, MISSING_ARGUMENT, NOT_IMPLEMENTED, OUT_OF_SEQUENCE)
"""Refusals of a command as such; a transaction in which one is given gets no click challenge."""
SCHIZOPHRENIC_EHLO = Reply(252, "550 5.7.1 client %s [%s] is schizophrenic", meaning="A second EHLO named another host than the first.")
EHLO_NOT_SUPPORTED = Reply(253, "502 5.5.1 EHLO not supported", meaning="smtp-enable-esmtp is off; the client should fall back to HELO.")
EHLO_HELLO = Reply(254, "250-%s Hello %s [%s]", meaning="First line of the answer to EHLO.")
SCHIZOPHRENIC_HELO = Reply(255, "550 5.7.1 client %s [%s] is schizophrenic", meaning="A second HELO named another host than the first.")
HELO_HELLO = Reply(256, "250 %s Hello %s [%s]", meaning="HELO was accepted.")
SENDER_SYNTAX = Reply(279, "%d %s, sender %s", meaning="The address of MAIL FROM breaks the grammar; the text says where.")
MAIL_SYNTAX = Reply(280, "501 5.5.2 syntax error", meaning="MAIL without FROM:, or blanks where rfc2821-extra-spaces forbids them.")
MORE_THAN_ONE_DOMAIN = Reply(
    944, "450 4.7.1 more than one sender <%s> domain per session; domain=%s", meaning="one-domain-per-session: the second sender domain."
)
QUEUE_REFUSED_SENDER = Reply(
    282, "%d %d.1.0 sender <%s> denied", meaning="The host that queues this authenticated client's mail refused the sender."
)
SENDER_ACCEPTED = Reply(283, "250 2.1.0 sender <%s> accepted", meaning="MAIL FROM was accepted.")
RECIPIENT_SYNTAX = Reply(284, "%d %s, recipient %s", meaning="The address of RCPT TO breaks the grammar; the text says where.")
RCPT_SYNTAX = Reply(285, "501 5.5.2 syntax error", meaning="RCPT without TO:, or blanks where rfc2821-extra-spaces forbids them.")
NULL_RECIPIENT = Reply(286, "550 5.7.1 null recipient invalid", meaning="RCPT TO:<> names nobody.")
RELAYING_DENIED = Reply(
    288,
    "550 5.7.1 recipient <%s> relaying denied",
    meaning="The route map has no route for the recipient, and the client may not send anywhere it likes.",
)
RECIPIENT_DISCARDED = Reply(290, "250 2.1.5 recipient <%s> accepted", meaning="Accepted, but by its list entry it will not be delivered.")
RECIPIENT_UNKNOWN = Reply(292, "550 5.7.1 recipient <%s> unknown", meaning="Call-ahead: the recipient's host does not know the mailbox.")
TOO_MANY_RECIPIENTS = Reply(
    1147, "452 4.5.3 too many recipients", meaning="The transaction has a thousand recipients; the client sends the rest in another one."
)
CANNOT_FORWARD = Reply(
    295,
    "451 4.0.0 cannot forward mail for <%s> at this time",
    meaning="No next hop of the route answered, or the route map could not be asked. The sender will try again.",
)
NO_FORWARD_HOSTS = Reply(
    296, "550 5.7.1 recipient <%s> relaying denied", meaning="The recipient's route has no FORWARD: hosts and the client may not relay."
)
RECIPIENT_ACCEPTED = Reply(297, "250 2.1.5 recipient <%s> accepted", meaning="The next hop has taken the recipient.")
TRANSACTION_FAILED = Reply(306, "554 5.7.0 transaction failed", meaning="The next hop refused the message for good.")
TRANSACTION_ABORTED = Reply(307, "451 4.4.0 transaction aborted", meaning="The next hop could not take the message now, or was lost.")
LINE_TOO_LONG = Reply(
    321,
    "554 5.5.2 content line too long (%ld); RFC 2821 section 4.5.3.1",
    meaning="rfc2821-line-length: a line of the message is too long.",
)
BARE_LINE_END = Reply(
    1145,
    "550 5.5.2 message contains a bare %s",
    meaning="A CR or LF stands alone in the message. Lone line ends serve to smuggle a second message, so they are not passed on.",
)
COMMAND_TOO_LONG = Reply(
    640, "500 5.5.2 RFC 2821 max. command line length exceeded (%ld)", meaning="A command line is longer than the protocol allows."
)
NON_PRINTABLE = Reply(
    641,
    "500 5.5.2 %s [%s] sent non-printable characters in SMTP command",
    meaning="A command line holds control characters or 8-bit octets.",
)
PIPELINING_NOT_ALLOWED = Reply(643, "550 5.3.3 pipelining not allowed", meaning="The client spoke before it was its turn.")
TOO_MANY_HOPS = Reply(
    1154,
    "554 5.4.6 too many hops",
    meaning="The message has passed more than a hundred hosts: it is going round. Look at its Received fields.",
)
CHUNK_TAKEN = Reply(1152, "250 2.0.0 %ld octets received", meaning="A chunk of a message came whole; the next BDAT is awaited.")
CHUNK_SYNTAX = Reply(
    1153,
    "501 5.5.4 BDAT needs a length",
    meaning="BDAT without a usable length. The connection is closed, because nobody knows where it ends.",
)
TLS_ARGUMENT = Reply(1146, "501 5.5.4 STARTTLS takes no argument", meaning="STARTTLS came with an argument.")
BANNER_SHORT = Reply(632, "220 %s %sSMTP", meaning="The banner for clients that are known.")
BANNER = Reply(633, "220%c%s %s %sSMTP", meaning="The banner for everybody else.")
BLOCKED = Reply(945, "550 5.7.0 this message was blocked", meaning="A TRAP entry of the access map kept the message.")
OK = Reply(547, "250 2.0.0 OK")
END = Reply(548, "214 2.0.0 end")
INTERNAL_ERROR = Reply(549, "421 4.3.0 internal server error", meaning="A fault of smtpf; the log has #539.")
INTERNAL_ERROR_LATER = Reply(550, "451 4.3.0 internal server error", meaning="The message could not be stored; the sender will try again.")
RESOURCES_EXCEEDED = Reply(551, "421 4.3.2 system resources exceeded", meaning="No descriptors or memory left; see #556 in the log.")
TRY_AGAIN = Reply(552, "451 4.7.0 try again later", meaning="Grey-listing, or test-on-command: come back in some minutes.")
MESSAGE_ACCEPTED = Reply(554, "250 2.0.0 message %s accepted", meaning="A next hop has taken the message.")
MESSAGE_REJECTED = Reply(555, "550 5.7.1 message %s rejected", meaning="test-on-command asked for a refusal.")
NOT_AVAILABLE = Reply(
    966, "421 4.3.2 service temporarily unavailable", meaning="The session can only be ended: it was refused, timed out, or the node stops."
)
PROCEED = Reply(1033, "250 2.0.0 proceed", meaning="The command has no answer of its own; a refusal waits for RCPT.", with_session=False)
BAD_PARAMETERS_MAIL = Reply(
    1016, "555 5.5.4 invalid or unsupported parameters", meaning="MAIL named a parameter that was not offered in the EHLO reply."
)
BAD_PARAMETERS_RCPT = Reply(
    1017, "555 5.5.4 invalid or unsupported parameters", meaning="RCPT named a parameter that was not offered in the EHLO reply."
)
PRELIMINARY = Answer(('354 enter mail, end with "." on a line by itself',))

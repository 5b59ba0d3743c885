"""Options of earlier versions that no longer do anything.

An old option file may still name them: each is accepted with one warning, never shown and never dumped.
Source: spec chapter options, section 9; chapter operations, 6.1.
"""

from __future__ import annotations

from smtpf.settings.option import Flag, Number, Text

SERVER_MIN_THREADS = Number("server-min-threads", 10, "Sessions no longer have a thread each.", area="server", ignored=True)
SERVER_NEW_THREADS = Number("server-new-threads", 10, "Sessions no longer have a thread each.", area="server", ignored=True)
SMTP_ACCEPT_TIMEOUT = Number("smtp-accept-timeout", 10, "No thread waits idly for connections any more.", area="server", ignored=True)
SMTP_DROP_RSET = Flag("smtp-drop-rset", False, "RSET never ends a connection.", area="smtp", ignored=True)
URI_MAX_LIMIT = Number("uri-max-limit", 0, "The number of links is no reason to refuse; see uri-max-test.", area="uri", ignored=True)
URI_MUNGE = Flag("uri-munge", False, "Links are never rewritten.", since="later", area="uri", ignored=True)
NS_SUB_DOMAINS = Flag("ns-sub-domains", False, "Parent names of name servers are not tested.", since="later", area="uri", ignored=True)
FPSCAND_MAX_SIZE = Number("fpscand-max-size", 0, "fpscand always gets the whole message.", area="fpscand", ignored=True)
SIQ_SUBJECT_SCORE = Flag("siq-subject-score", False, "The subject tag carries no score.", area="siq", ignored=True)
STATS_HTTP_REALM = Text("stats-http-realm", "", "The realm is whatever the web server asks for.", since="later", area="stats", ignored=True)
TEST_CASE = Text("test-case", "", "A test aid of the first versions.", area="test", ignored=True)
IS_NXDOMAIN = Flag(
    "is-nxdomain", False, "The name of a family; set mail-ns-nxdomain and uri-ns-nxdomain instead.", area="mail", ignored=True
)

"""Which filter runs at which stage, in which order. The one page to change when a filter is added.

Source: spec chapter session, 4.3 and 4.4.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from smtpf.filters.access import Access
from smtpf.filters.attachment import Attachment
from smtpf.filters.avastd import Avastd
from smtpf.filters.call_back import CallBack
from smtpf.filters.clamd import Clamd
from smtpf.filters.cli import Cli
from smtpf.filters.click import Click
from smtpf.filters.client_ptr import ClientPtr
from smtpf.filters.concurrent import Concurrent
from smtpf.filters.ctasd import Ctasd
from smtpf.filters.digest import DigestLists
from smtpf.filters.dns_list import ClientLists
from smtpf.filters.dupmsg import DupMsg
from smtpf.filters.emew import Emew
from smtpf.filters.fpscand import Fpscand
from smtpf.filters.grey import Grey
from smtpf.filters.grey_content import GreyContent
from smtpf.filters.header_tests import HeaderTests
from smtpf.filters.helo import Helo
from smtpf.filters.idle_retest import IdleRetest
from smtpf.filters.ixhash import IxHash
from smtpf.filters.lint import Lint
from smtpf.filters.mail_bl import MailBl
from smtpf.filters.mail_strict import MailStrict
from smtpf.filters.mime_pass import MimePass
from smtpf.filters.msg_limit import MsgLimit
from smtpf.filters.mx import Mx
from smtpf.filters.ns import Ns
from smtpf.filters.null_rate import NullRate
from smtpf.filters.one_rcpt_per_null import OneRcptPerNull
from smtpf.filters.p0f import P0f
from smtpf.filters.parameters import Parameters
from smtpf.filters.pause import Pause
from smtpf.filters.rate import Rate
from smtpf.filters.report import Report
from smtpf.filters.savdid import Savdid
from smtpf.filters.save import Save
from smtpf.filters.siq import Siq
from smtpf.filters.size import Size
from smtpf.filters.spamd import Spamd
from smtpf.filters.spf import SpfPolicy
from smtpf.filters.tagging import Tagging
from smtpf.filters.time_limit import TimeLimit
from smtpf.filters.tls_policy import TlsPolicy
from smtpf.filters.uri import UriTests
from smtpf.filters.uri_envelope import UriEnvelope
from smtpf.pipeline import Filter, Stage, Test

ORDER: dict[Stage, tuple[Callable[..., Any], ...]] = {
    Stage.ACCEPT: (),
    Stage.CONNECT: (
        Rate.connect,
        Concurrent.connect,
        P0f.connect,
        Pause.prepare,
        TlsPolicy.connect,
        Size.connect,
        Access.connect,
        ClientLists.white,
        ClientLists.grey,
        ClientPtr.connect,
        ClientLists.connect,
        UriEnvelope.connect,
        Pause.connect,
    ),
    Stage.IDLE: (
        IdleRetest.idle,
        Access.idle,
        ClientLists.idle,
    ),
    Stage.HELO: (
        Helo.note_trusted,
        Access.helo,
        Helo.syntax,
        Helo.helo,
        Helo.is_ptr,
        UriEnvelope.helo,
    ),
    Stage.MAIL: (
        P0f.mail,
        TlsPolicy.mail,
        Size.mail,
        SpfPolicy.mail,
        Access.mail,
        Click.mail,
        UriEnvelope.postponed_client,
        Helo.mail,
        UriEnvelope.postponed_helo,
        MailBl.mail,
        UriEnvelope.mail,
        Parameters.mail,
        Mx.mail,
        Ns.mail,
        ClientPtr.mail,
    ),
    Stage.ADDRESS: (
        TimeLimit.address,
    ),
    Stage.RCPT: (
        TlsPolicy.rcpt,
        TimeLimit.rcpt,
        MsgLimit.rcpt,
        Size.rcpt,
        Access.rcpt,
        Click.rcpt,
        Parameters.rcpt,
        OneRcptPerNull.rcpt,
        Mx.rcpt,
        Helo.rcpt,
        SpfPolicy.rcpt,
        MailStrict.rcpt,
    ),
    Stage.DATA: (
        Tagging.data,
        Access.gate,
        CallBack.data,
        Grey.data,
        NullRate.data,
        Siq.data,
        Cli.data,
        Lint.data,
    ),
    Stage.HEADERS: (
        Report.headers,
        HeaderTests.end_of_header,
        Tagging.headers,
        SpfPolicy.headers,
        DupMsg.headers,
        P0f.headers,
        Grey.headers,
        GreyContent.headers,
        Clamd.headers,
        Emew.headers,
        Access.gate,
        ClientLists.headers,
        Siq.headers,
        HeaderTests.headers,
        Attachment.headers,
        DigestLists.headers,
        MailBl.want,
        UriTests.headers,
        MailBl.headers,
        Cli.headers,
        Spamd.headers,
    ),
    Stage.CONTENT: (
        Tagging.content,
        DupMsg.content,
        Clamd.content,
        Emew.content,
        Access.gate,
        MimePass.content,
        Attachment.content,
        DigestLists.content,
        UriTests.content,
        MailBl.content,
        GreyContent.content,
        IxHash.content,
        Cli.content,
        Spamd.content,
    ),
    Stage.DOT: (
        Save.dot,
        Tagging.dot,
        DupMsg.dot,
        Clamd.dot,
        Ctasd.dot,
        Avastd.dot,
        Fpscand.dot,
        Savdid.dot,
        Emew.dot,
        Size.dot,
        Access.gate,
        Ctasd.judge_spam,
        DigestLists.dot,
        GreyContent.dot,
        IxHash.dot,
        Cli.dot,
        Spamd.dot,
    ),
    Stage.RSET: (
        Clamd.rset,
        Cli.rset,
        DupMsg.rset,
        Lint.rset,
        Spamd.rset,
    ),
    Stage.CLOSE: (
        Concurrent.close,
        DupMsg.close,
        Lint.close,
    ),
}  # fmt: skip


def bind(filters: Iterable[Filter], further: Iterable[Filter] = ()) -> Mapping[Stage, tuple[Test, ...]]:
    """The tests of each stage as methods of these ``filters``.

    ``further`` ones, of third parties, come last in every stage they override.
    """
    by_class: dict[type[Filter], Filter] = {type(each): each for each in filters}
    bound = {stage: [_method(by_class, hook) for hook in hooks] for stage, hooks in ORDER.items()}
    for each in further:
        for stage in Stage:
            if getattr(type(each), stage.value) is not getattr(Filter, stage.value):
                bound.setdefault(stage, []).append(getattr(each, stage.value))
    return {stage: tuple(tests) for stage, tests in bound.items()}


def _method(by_class: Mapping[type[Filter], Filter], hook: Callable[..., Any]) -> Test:
    for kind, each in by_class.items():
        if getattr(kind, hook.__name__, None) is hook:
            return getattr(each, hook.__name__)  # type: ignore[no-any-return]
    raise LookupError(f"no filter for {hook.__qualname__}")

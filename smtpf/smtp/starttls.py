from __future__ import annotations
from smtpf.pipeline import Code, Verdict
from smtpf.smtp import replies


def offered(talk): return False
def demanded(session): return False
async def starttls(talk, argument, line): return Verdict(Code.CONTINUE, replies.NOT_IMPLEMENTED, ("STARTTLS",))

from __future__ import annotations
from smtpf.pipeline import Code, Verdict
from smtpf.reply import Reply
NOT_SUPPORTED = Reply(827, "502 5.5.1 AUTH not supported", meaning="smtp-auth-enable is off.")
async def auth(talk, argument, line): return Verdict(Code.CONTINUE, NOT_SUPPORTED)

"""aiosmtpd in front of a next hop: message in memory, relayed before the client is answered. ``LISTEN-PORT NEXT-HOP-PORT``."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from aiosmtpd.smtp import SMTP

HOST = "127.0.0.1"


class Proxy:
    """Relays each message over a connection of its own."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        reader, writer = await asyncio.open_connection(HOST, self._port)
        try:
            await _reply(reader)
            recipients = [b"RCPT TO:<%s>" % name.encode() for name in envelope.rcpt_tos]
            for line in (b"EHLO proxy.bench.example", b"MAIL FROM:<%s>" % envelope.mail_from.encode(), *recipients, b"DATA"):
                writer.write(line + b"\r\n")
                reply = await _reply(reader)
                if reply[0] not in "23":
                    return reply
            content = envelope.content
            writer.write((b"." if content.startswith(b".") else b"") + content.replace(b"\n.", b"\n..") + b".\r\n")
            await writer.drain()
            reply = await _reply(reader)
            writer.write(b"QUIT\r\n")
            return reply
        finally:
            writer.close()


async def _reply(reader: asyncio.StreamReader) -> str:
    while True:
        line = await reader.readline()
        if line[3:4] != b"-":
            return line.decode("ascii").rstrip()


async def main() -> None:
    address, listen, hop = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    handler = Proxy(hop)
    server = await asyncio.get_running_loop().create_server(
        lambda: SMTP(handler, hostname="proxy.bench.example", data_size_limit=None), address, listen, backlog=1024
    )
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())

"""A name server that knows one thing: that there is nothing of that name."""

from __future__ import annotations

import asyncio
import struct
from typing import Any

from bench.processes import HOST

_HEADER = struct.Struct("!HHHHHH")


class NothingThere(asyncio.DatagramProtocol):
    """Answers every question with NXDOMAIN, in the loop in which it was opened."""

    port: int

    async def __aenter__(self) -> NothingThere:
        self._transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(lambda: self, local_addr=(HOST, 0))
        self.port = self._transport.get_extra_info("sockname")[1]
        return self

    async def __aexit__(self, *failure: object) -> None:
        self._transport.close()

    def datagram_received(self, data: bytes, address: Any) -> None:
        if len(data) < 17:
            return
        number = _HEADER.unpack_from(data)[0]
        end = data.index(b"\0", 12) + 5
        self._transport.sendto(_HEADER.pack(number, 0x8583, 1, 0, 0, 0) + data[12:end], address)

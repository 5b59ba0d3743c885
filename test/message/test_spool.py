"""The spool: what is written is read back, by several readers, from memory or from the disk, or the failure is told."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.threads import deferToThread

from smtpf.message.spool import (
    CREATE_ERROR,
    DELETE_ERROR,
    LARGEST,
    MEMORY,
    MISSING_NAME,
    NAME_ERROR,
    OPEN_ERROR,
    READ_ERROR,
    ROOM,
    SAVE_ERROR,
    TRAP_ERROR,
    Room,
    Spool,
    SpoolError,
    SpoolReader,
)

HEADERS = b"Subject: x\r\n"
HEAD = b"Return-Path: <joe@example.org>\r\nSubject: x\r\n\r\n"
CHUNKS = [bytes([65 + number]) * 60_000 + b"\r\n" for number in range(20)]


def at_once(work: Callable[[], Any]) -> Deferred[Any]:
    return maybeDeferred(work)


def a_spool(folder: Path, in_thread: Any = at_once, room: Room | None = None) -> Spool:
    """By default one that finds no room in memory beyond its own."""
    return Spool("T1", str(folder), "abcd", "joe@example.org", HEADERS, in_thread, Room(0) if room is None else room)


async def write_all(spool: Spool, chunks: list[bytes]) -> None:
    for chunk in chunks:
        waiting = spool.write(chunk)
        if waiting is not None:
            await waiting
    finishing = spool.finish()
    if finishing is not None:
        await finishing


async def next_of(reader: SpoolReader) -> bytes | SpoolError:
    piece = reader.read()
    return await piece if isinstance(piece, Deferred) else piece


async def read_all(reader: SpoolReader) -> bytes:
    whole = b""
    while piece := await next_of(reader):
        assert isinstance(piece, bytes)
        whole += piece
    return whole


def test_small_body_stays_in_memory_and_answers_at_once(tmp_path: Path) -> None:
    def refuse(work: Callable[[], Any]) -> Deferred[Any]:
        raise AssertionError("no thread is needed")

    spool = a_spool(tmp_path, refuse)
    assert spool.write(b"hi\r\n") is None
    assert spool.finish() is None
    reader = spool.reader()
    assert (reader.read(), reader.read(), spool.size) == (b"hi\r\n", b"", 4)
    assert list(tmp_path.iterdir()) == []


def test_only_a_checked_body_in_memory_is_plain(tmp_path: Path) -> None:
    spool = a_spool(tmp_path)
    spool.write(b"hi\r\n")
    assert not spool.plain
    spool.checked = True
    assert spool.plain
    spool.write(b"x" * MEMORY)
    assert not spool.plain


def test_large_body_stays_in_memory_while_there_is_room(reactor_run: Any, tmp_path: Path) -> None:
    room = Room()
    first, second = a_spool(tmp_path, room=room), a_spool(tmp_path, room=room)

    async def work() -> None:
        await write_all(first, CHUNKS)
        assert room.left == ROOM - (first.size - MEMORY)
        room.left = 0
        await write_all(second, CHUNKS)
        assert [file.name for file in tmp_path.iterdir()] == [os.path.basename(second._path)]
        assert await read_all(first.reader()) == await read_all(second.reader()) == b"".join(CHUNKS)
        await second.close()
        assert room.left == 0
        await first.close()
        assert room.left == first.size - MEMORY

    reactor_run(work())


def test_body_that_outgrows_memory_gives_its_room_back(reactor_run: Any, tmp_path: Path) -> None:
    room = Room()
    spool = a_spool(tmp_path, room=room)

    async def work() -> None:
        chunks = CHUNKS * 5
        await write_all(spool, chunks)
        assert spool.size > LARGEST
        assert room.left == ROOM
        assert await read_all(spool.reader()) == b"".join(chunks)
        await spool.close()
        assert room.left == ROOM

    reactor_run(work())


def test_file_that_is_asked_for_gives_the_room_back_when_more_comes(reactor_run: Any, tmp_path: Path) -> None:
    room = Room()
    spool = a_spool(tmp_path, room=room)

    async def work() -> None:
        await write_all(spool, CHUNKS)
        assert isinstance(await spool.path(), str)
        await write_all(spool, CHUNKS)
        assert room.left == ROOM
        assert await read_all(spool.reader()) == b"".join(CHUNKS * 2)
        await spool.close()

    reactor_run(work())


def test_large_body_is_read_by_several_readers_and_removed(reactor_run: Any, tmp_path: Path) -> None:
    async def work() -> None:
        spool = a_spool(tmp_path, deferToThread)
        await write_all(spool, CHUNKS)
        assert spool.error is None and spool.size == sum(map(len, CHUNKS)) > MEMORY
        one, two = spool.reader(), spool.reader()
        begin = await next_of(one)
        assert await read_all(two) == b"".join(CHUNKS)
        assert isinstance(begin, bytes)
        assert begin + await read_all(one) == b"".join(CHUNKS)
        path = await spool.path()
        assert isinstance(path, str)
        assert Path(path).read_bytes() == HEAD + b"".join(CHUNKS)
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o660
        assert Path(path).name == "T1.abcd.tmp"
        assert await spool.close() is None

    reactor_run(work)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("chunks", [[], [b"hi\r\n"], CHUNKS])
def test_scanner_gets_a_file_of_any_body(reactor_run: Any, tmp_path: Path, chunks: list[bytes]) -> None:
    async def work() -> None:
        spool = a_spool(tmp_path, deferToThread)
        await write_all(spool, chunks)
        path = await spool.path()
        assert path == await spool.path()
        assert isinstance(path, str)
        assert Path(path).read_bytes() == HEAD + b"".join(chunks)
        assert await read_all(spool.reader()) == b"".join(chunks)
        await spool.close()

    reactor_run(work)


def test_file_wanted_early_still_holds_what_comes_later(reactor_run: Any, tmp_path: Path) -> None:
    async def work() -> None:
        spool = a_spool(tmp_path, deferToThread)
        spool.write(CHUNKS[0])
        path = await spool.path()
        await write_all(spool, CHUNKS[1:])
        assert isinstance(path, str)
        assert Path(path).read_bytes() == HEAD + b"".join(CHUNKS)
        assert await read_all(spool.reader()) == b"".join(CHUNKS)
        await spool.close()

    reactor_run(work)


def test_slow_disk_makes_the_writer_wait(tmp_path: Path) -> None:
    jobs: list[tuple[Callable[[], Any], Deferred[Any]]] = []

    def slow(work: Callable[[], Any]) -> Deferred[Any]:
        jobs.append((work, Deferred()))
        return jobs[-1][1]

    spool = a_spool(tmp_path, slow)
    waits = [spool.write(chunk) for chunk in CHUNKS[:12]]
    waiting = [wait for wait in waits if wait is not None]
    assert waiting and not any(wait.called for wait in waiting)
    assert len(jobs) == 1
    while jobs:
        work, done = jobs.pop()
        done.callback(work())
    assert all(wait.called for wait in waiting)
    assert spool.error is None


def test_saved_and_trapped_messages_outlive_the_transaction(reactor_run: Any, tmp_path: Path) -> None:
    async def work() -> None:
        spool = a_spool(tmp_path, deferToThread)
        await write_all(spool, [b"hi\r\n"])
        assert await spool.save(str(tmp_path)) is None
        assert await spool.trap(str(tmp_path)) is None
        again = await spool.save(str(tmp_path))
        assert again is not None and again.message is SAVE_ERROR
        assert again.args == (str(tmp_path / "T1.abcd.tmp"), str(tmp_path / "T1.msg"), os.strerror(errno.EEXIST), errno.EEXIST)
        lost = await spool.trap(str(tmp_path / "none"))
        assert lost is not None and lost.message is TRAP_ERROR
        await spool.close()

    reactor_run(work)
    assert {path.name for path in tmp_path.iterdir()} == {"T1.msg", "T1.trap"}
    assert (tmp_path / "T1.msg").read_bytes() == HEAD + b"hi\r\n"


def test_save_data_keeps_the_file(reactor_run: Any, tmp_path: Path) -> None:
    async def work() -> None:
        spool = a_spool(tmp_path, deferToThread)
        await write_all(spool, [b"hi\r\n"])
        await spool.path()
        await spool.close(keep=True)

    reactor_run(work)
    assert [path.name for path in tmp_path.iterdir()] == ["T1.abcd.tmp"]


def test_save_data_makes_a_file_of_a_message_that_had_none(reactor_run: Any, tmp_path: Path) -> None:
    async def work() -> None:
        spool = a_spool(tmp_path, deferToThread)
        await write_all(spool, [b"hi\r\n"])
        assert await spool.close(keep=True) is None

    reactor_run(work)
    assert (tmp_path / "T1.abcd.tmp").read_bytes() == HEAD + b"hi\r\n"


def test_save_data_without_its_folder_is_told(tmp_path: Path, reactor_run: Any) -> None:
    async def work() -> SpoolError | None:
        spool = a_spool(tmp_path / "none")
        await write_all(spool, [b"hi\r\n"])
        return await spool.close(keep=True)

    problem = reactor_run(work)
    assert problem is not None
    assert problem.message is NAME_ERROR


def failed(spool: Spool) -> SpoolError:
    for chunk in CHUNKS:
        spool.write(chunk)
    assert spool.error is not None
    return spool.error


def test_missing_folder_is_told(tmp_path: Path) -> None:
    error = failed(a_spool(tmp_path / "none"))
    assert error.message is NAME_ERROR
    assert error.message.format % error.args == f'temp. file name "{tmp_path}/none/T1.abcd.tmp": No such file or directory (2)'


def test_no_link_is_followed_and_no_file_is_overwritten(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / "T1.abcd.tmp").symlink_to(victim)
    assert failed(a_spool(tmp_path)).message is CREATE_ERROR
    assert victim.read_bytes() == b"precious"


def test_full_disk_is_told_and_the_file_goes() -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full")
    spool = a_spool(Path("/dev"))
    spool._file = os.open("/dev/full", os.O_WRONLY)
    assert failed(spool).message is CREATE_ERROR
    assert spool.error is not None and spool.error.args[-1] == errno.ENOSPC
    os.close(spool._file)


def test_reader_tells_what_the_disk_did(reactor_run: Any, tmp_path: Path) -> None:
    async def work() -> None:
        spool = a_spool(tmp_path)
        await write_all(spool, CHUNKS)
        path = await spool.path()
        assert isinstance(path, str)
        os.truncate(path, len(HEAD) + 10)
        reader = spool.reader()
        assert await next_of(reader) == b"A" * 10
        short = await next_of(reader)
        assert isinstance(short, SpoolError) and short.message is READ_ERROR
        os.unlink(path)
        gone = await next_of(spool.reader())
        assert isinstance(gone, SpoolError) and gone.message is OPEN_ERROR
        left = await spool.close()
        assert left is not None and left.message is DELETE_ERROR
        late = await spool.path()
        assert isinstance(late, SpoolError) and late.message is MISSING_NAME

    reactor_run(work)


def test_close_waits_for_a_reader_in_a_thread(reactor_run: Any, tmp_path: Path) -> None:
    async def work() -> None:
        spool = a_spool(tmp_path, deferToThread)
        await write_all(spool, CHUNKS)
        spool.reader().read()
        assert await spool.close() is None

    before = len(os.listdir("/proc/self/fd"))
    reactor_run(work)
    assert len(os.listdir("/proc/self/fd")) <= before + 3
    assert list(tmp_path.iterdir()) == []

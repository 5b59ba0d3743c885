"""Header sections: where they end, what edits leave untouched, and what cannot be inserted."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpf.message.encoded_word import decode_words, encode_words
from smtpf.message.header import MAX_HEADER_SECTION, Field, HeaderEnd, HeaderList, field, split_headers
from smtpf.message.trace import received, report, with_word

E = HeaderEnd


@pytest.mark.parametrize(
    ("message", "headers", "body", "end"),
    [
        (b"A: 1\r\n\r\nhi\r\n", b"A: 1\r\n", b"hi\r\n", E.EMPTY_LINE),
        (b"A: 1\r\n 2\r\n\t3\r\nB:\r\n\r\n", b"A: 1\r\n 2\r\n\t3\r\nB:\r\n", b"", E.EMPTY_LINE),
        (b"\r\nhi\r\n", b"", b"hi\r\n", E.EMPTY_LINE),
        (b"A: 1\r\nhello\r\nB: 2\r\n", b"A: 1\r\n", b"hello\r\nB: 2\r\n", E.BODY_LINE),
        (b"hello\r\n", b"", b"hello\r\n", E.BODY_LINE),
        (b":x\r\n", b"", b":x\r\n", E.BODY_LINE),
        (b" x: y\r\nA: 1\r\n\r\n", b"", b" x: y\r\nA: 1\r\n\r\n", E.BODY_LINE),
        (b".\r\n", b"", b".\r\n", E.BODY_LINE),
        (b"A: 1\r\nTwo words: x\r\n\r\n", b"A: 1\r\n", b"Two words: x\r\n\r\n", E.BODY_LINE),
        (b"A : 1\r\n\r\n", b"A : 1\r\n", b"", E.EMPTY_LINE),
        (b"From joe Sat Jul  4 09:05:03 2026\r\nA: 1\r\n\r\nhi\r\n", b"A: 1\r\n", b"hi\r\n", E.EMPTY_LINE),
        (b">From joe Sat Jul  4 09:05:03 2026\r\n\r\nhi\r\n", b"", b"hi\r\n", E.EMPTY_LINE),
        (b"A: 1\r\nB: 2\r\n", b"A: 1\r\nB: 2\r\n", b"", E.MESSAGE_END),
        (b"", b"", b"", E.MESSAGE_END),
    ],
)
def test_header_section_ends(message: bytes, headers: bytes, body: bytes, end: HeaderEnd) -> None:
    split = split_headers(message, final=True)
    assert split is not None
    assert (split.headers, split.body, split.end) == (headers, body, end)


@pytest.mark.parametrize("message", [b"", b"A: 1\r\n", b"A: 1\r\nB", b"A: 1\r\n B\r\n", b"From joe\r\n"])
def test_more_is_needed_before_the_end_is_known(message: bytes) -> None:
    assert split_headers(message) is None


def test_headers_over_the_limit_are_told() -> None:
    line = b"A: " + b"x" * 995 + b"\r\n"
    split = split_headers(line * 300 + b"\r\n")
    assert split is not None
    assert split.end is E.TOO_LARGE
    assert MAX_HEADER_SECTION - len(line) < len(split.headers) <= MAX_HEADER_SECTION
    assert split.headers + split.body == line * 300 + b"\r\n"
    endless = split_headers(b"A: " + b"x" * 300_000)
    assert endless is not None
    assert (endless.end, endless.headers) == (E.TOO_LARGE, b"")


def test_untouched_fields_keep_their_octets() -> None:
    section = b"subject :\txyz \r\n\t\xff \r\nTo: a@b\r\nX-Odd:\r\n"
    headers = HeaderList.parse(section)
    headers.append("X-New", "1")
    headers.remove("to")
    assert headers.encode() == b"subject :\txyz \r\n\t\xff \r\nX-Odd:\r\nX-New: 1\r\n"


def test_fields_are_found_by_name_in_any_case() -> None:
    headers = HeaderList.parse(b"Received: a\r\nSubject: =?utf-8?q?gr=C3=BC=C3=9Fe?=\r\nRECEIVED : b\r\n c\r\n")
    assert [found.value for found in headers.all("received")] == [b"a", b"b c"]
    assert headers.get("SUBJECT") == "grüße"
    assert headers.get("To", "none") == "none"
    assert headers.first("to") is None
    assert "receiveD" in headers
    assert [found.name for found in headers] == ["Received", "Subject", "RECEIVED"]


def test_replace_leaves_one_field_in_the_first_place() -> None:
    headers = HeaderList.parse(b"A: 1\r\nB: 2\r\nA: 3\r\n")
    headers.replace("a", "new")
    headers.replace("C", "4")
    assert headers.encode() == b"a: new\r\nB: 2\r\nC: 4\r\n"


def test_removal_tells_what_was_removed() -> None:
    headers = HeaderList.parse(b"X-Spam-Flag: YES\r\nX-Spam-Score: 9\r\n 8\r\nX-Spa: 1\r\n")
    assert [found.line for found in headers.remove_prefixed("x-spam-")] == ["X-Spam-Flag: YES", "X-Spam-Score: 9 8"]
    assert headers.encode() == b"X-Spa: 1\r\n"
    assert headers.remove("none") == []


@pytest.mark.parametrize(
    ("before", "tag", "after"),
    [
        (b"Subject: s2\r\n", "[SPAM]", b"Subject: [SPAM] s2\r\n"),
        (b"Subject: Re: [SPAM] s2\r\n", "[SPAM]", b"Subject: Re: [SPAM] s2\r\n"),
        (b"", "[SPAM]", b"Subject: [SPAM] \r\n"),
        (b"Subject: s2\r\n", "", b"Subject: s2\r\n"),
        (b"subject:  \ta\r\n b\r\n", "[SPAM]", b"Subject: [SPAM] a\r\n b\r\n"),
        (b"Subject: [spam]\r\n", "[SPAM]", b"Subject: [SPAM] [spam]\r\n"),
        (b"Subject: =?utf-8?q?[SPAM]_x?=\r\n", "[SPAM]", b"Subject: =?utf-8?q?[SPAM]_x?=\r\n"),
        (b"Subject: =?utf-8?b?W1NQQU1d?=\r\n", "[SPAM]", b"Subject: [SPAM] =?utf-8?b?W1NQQU1d?=\r\n"),
        (b"Subject: x\r\n", "[Müll]", b"Subject: =?UTF-8?B?W03DvGxsXQ==?= x\r\n"),
        (b"Subject: x\r\n", "[A]\r\nBcc: y", b"Subject: [A] Bcc: y x\r\n"),
    ],
)
def test_subject_prefix(before: bytes, tag: str, after: bytes) -> None:
    headers = HeaderList.parse(before)
    headers.prefix("Subject", tag)
    assert headers.encode() == after
    assert headers.prefix("Subject", tag) is False


@given(st.text(max_size=80))
def test_no_value_begins_a_field_of_its_own(value: str) -> None:
    raw = field("X-Test", value)
    assert len(HeaderList.parse(raw)) == 1
    split = split_headers(raw + b"\r\n")
    assert split is not None and split.headers == raw
    assert b"\0" not in raw


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (b"=?iso-8859-1?q?a?= =?iso-8859-1?q?b?=", "ab"),
        (b"=?iso-8859-1?q?a?= b", "a b"),
        (b"x =?utf-8?B?w6Q=?= y", "x ä y"),
        (b"=?utf-8?B?w6?= =?utf-8?B?pA==?=", "ä"),
        (b"=?utf-8?Q?=C3?= =?utf-8?Q?=A4?=", "ä"),
        (b"=?utf-8*de?q?a_b?=", "a b"),
        (b"=?no-such?q?=E4?=", "ä"),
        (b"=?idna?q?abc?=", "abc"),
        (b"=?hex?q?abc?=", "abc"),
        (b"=?utf-8?q?unfinished", "=?utf-8?q?unfinished"),
        (b"\xe4", "ä"),
        ("ä".encode(), "ä"),
    ],
)
def test_encoded_words_are_decoded(value: bytes, text: str) -> None:
    assert decode_words(value) == text


@given(st.text(max_size=200).filter(lambda text: not text.isascii()))
def test_encoded_words_come_back(text: str) -> None:
    if not any(0xD800 <= ord(character) < 0xE000 for character in text):
        assert decode_words(encode_words(text).encode()) == text


def test_field_value_is_unfolded() -> None:
    assert Field(b"A: x\r\n\ty \r\n").value == b"x\ty"


def test_received_has_the_published_form(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        raw = received(
            helo="mail.example.org",
            client_name="mail.example.org",
            client_address="192.0.2.7",
            interface_name="mx.example.com",
            interface_address="192.0.2.1",
            sender="joe@example.org",
            protocol=with_word(True, True, False),
            cipher="TLSv1.3 cipher=TLS_AES_256_GCM_SHA384 bits=256/256 valid=NONE",
            tid="26395304711000171c",
            when=1783148703.0,
        )
        bare = received(
            helo="evil\r\nX: y",
            client_name="",
            client_address="192.0.2.7",
            interface_name="mx.example.com",
            interface_address="192.0.2.1",
            sender="",
            protocol=with_word(False, False, False),
            tid="T",
            ret_id="pass",
            when=1783148703.0,
        )
    finally:
        monkeypatch.undo()
        time.tzset()
    assert raw == (
        b"Received: from mail.example.org (mail.example.org [192.0.2.7])\r\n"
        b"\tby mx.example.com (mx.example.com [192.0.2.1]) envelope-from <joe@example.org>\r\n"
        b"\twith ESMTPS (TLSv1.3 cipher=TLS_AES_256_GCM_SHA384 bits=256/256 valid=NONE) id 26395304711000171c ret-id none; "
        b"Sat, 04 Jul 2026 09:05:03 +0200\r\n"
    )
    assert bare == (
        b"Received: from evil??X:?y ( [192.0.2.7])\r\n"
        b"\tby mx.example.com (mx.example.com [192.0.2.1]) envelope-from <>\r\n"
        b"\twith SMTP id T ret-id pass; Sat, 04 Jul 2026 09:05:03 +0200\r\n"
    )


def test_report_header_has_the_published_form() -> None:
    raw = report(
        "X-smtpf-Report", sid="S", tid="T", client_flags="relay,quit", mail_flags="", rcpt_flags="white", accepted=2, refused=1, fails=3
    )
    assert raw == b"X-smtpf-Report: sid=S; tid=T; client=relay,quit; mail=; rcpt=white; nrcpt=2:1; fails=3\r\n"


def test_hundred_thousand_fields_take_no_time() -> None:
    message = b"a:\r\n" * 60_000 + b"\r\n"
    begin = time.process_time()
    split = split_headers(message)
    assert split is not None
    headers = HeaderList.parse(split.headers)
    headers.remove_prefixed("a")
    assert len(headers) == 0
    assert time.process_time() - begin < 1.0

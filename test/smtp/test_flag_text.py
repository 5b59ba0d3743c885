"""Flags as log lines and headers show them."""

from __future__ import annotations

from smtpf.smtp.session import ClientFlag, flag_text


def test_flags_are_written_in_the_order_of_their_table_however_they_were_set():
    flags = {ClientFlag.IPV6, ClientFlag.WHITE, ClientFlag.MX}
    assert flag_text(flags, ClientFlag) == "mx,white,ipv6"
    assert flag_text({ClientFlag.QUIT}, ClientFlag) == "quit"
    assert flag_text(set(), ClientFlag) == ""

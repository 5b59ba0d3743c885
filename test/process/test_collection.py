"""What the node tells Python's collector."""

from __future__ import annotations

import gc

import pytest

from smtpf.process.collection import YOUNG, settle_collector


@pytest.fixture
def collector_as_before():
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


def test_what_lives_at_the_start_is_not_looked_at_again(collector_as_before):
    settle_collector()
    assert gc.get_freeze_count() > 1000
    assert gc.get_threshold()[0] == YOUNG

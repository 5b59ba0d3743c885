"""How a third party adds a filter: a Twisted plugin that provides ISmtpfFilter. ``docs/extending.md`` has a worked example."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zope.interface import Interface

if TYPE_CHECKING:
    from smtpf.filters.building import Materials
    from smtpf.pipeline import Filter


class ISmtpfFilter(Interface):
    """Makes one filter for a node. Its tests run behind the product's own in every stage it overrides."""

    def filter(materials: Materials) -> Filter:
        """A new filter made of the node's parts."""

"""How a third party adds a filter: a Twisted plugin that provides ISmtpfFilter. ``docs/extending.md`` has a worked example."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, Any

from twisted.plugin import getPlugins
from zope.interface import Attribute, Interface

if TYPE_CHECKING:
    from smtpf.filters.building import Materials
    from smtpf.pipeline import Filter


class ISmtpfFilter(Interface):
    """Makes one filter for a node. Its tests run behind the product's own in every stage it overrides."""

    module = Attribute("The module that declares the filter's options, messages, replies and counters.")

    def filter(materials: Materials) -> Filter:
        """A new filter made of the node's parts."""


def extensions() -> list[Any]:
    """The ISmtpfFilter plugins that are installed."""
    return list(getPlugins(ISmtpfFilter))


def extension_modules() -> list[ModuleType]:
    """Where they declare their options, messages, replies and counters."""
    return [each.module for each in extensions()]

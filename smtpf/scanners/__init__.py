"""Clients of other daemons' protocols: the wire only, no policy."""

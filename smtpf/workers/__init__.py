"""Several processes for one node: one accepts, the others talk with the clients.

The process that was started (the coordinator) binds the ports, keeps the cache, the statistics and the cluster, and hears signals and
commands. Each worker is a process of its own that answers the clients of certain addresses, so that whatever is limited by client
is counted in one place. ``crew`` is the coordinator's side, ``worker`` the other one.
"""

"""The process around the node: starting, listening, identity, limits, signals, the pid file, and how it all ends."""

"""The log: numbered messages, verbose words, targets."""

"""Administration: run-time commands and metrics."""

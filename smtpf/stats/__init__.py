"""Counters and their three tables."""

"""The cache: records, stores, and replication between nodes."""

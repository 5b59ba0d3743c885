"""What the node remembers between messages: records with a life time, kept in SQLite and shared between nodes."""

"""The message: spool, header fields, MIME structure, URIs."""

"""The SMTP engine: grammar, server side, client side."""

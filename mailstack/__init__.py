"""mailstack: SMTP in, one durable store, POP3 out, for a small office on one box."""

__version__ = "0.1.0"

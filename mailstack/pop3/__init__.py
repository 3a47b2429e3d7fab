"""POP3 (RFC 1939 and its extensions): a pure session, and the connection that carries it."""

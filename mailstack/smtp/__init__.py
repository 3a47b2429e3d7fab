"""SMTP and LMTP, the receiving side (RFC 5321, RFC 2033)."""

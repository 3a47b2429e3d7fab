"""The mail object of RFC 5321 §2.3.1: addresses, canonical lines, the spool, trace fields."""

"""Tests of SMTP and LMTP: transcripts, properties, and connections over real sockets."""

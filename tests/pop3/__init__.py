"""Tests of POP3: transcripts, properties, and connections over real sockets."""

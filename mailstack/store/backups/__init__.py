"""Backups: archives of content, which never changes, and beside them a small copy of all the rest.

Messages are immutable and numbered, so a second backup adds only what has come since the first.
The same files hold a store on SQLite and one on PostgreSQL, and restore into either.
"""

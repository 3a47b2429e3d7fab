"""Tests of passwords and of what is remembered of logins."""

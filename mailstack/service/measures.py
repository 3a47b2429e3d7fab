"""The names under which Prometheus finds our numbers, each with its meaning, as in docs/metrics.md."""

from __future__ import annotations

from typing import Final, NamedTuple


class Measure(NamedTuple):
    """One metric: its name, where its value is found, and what it says."""

    name: str
    source: str
    meaning: str
    label: str = ""


COUNTS: Final = (
    Measure(
        "mailstack_smtp_connections_total", "smtp_connections", "SMTP and LMTP connections since the start."
    ),
    Measure(
        "mailstack_smtp_connections_refused_total", "smtp_connections_refused", "Those turned away at once."
    ),
    Measure("mailstack_messages_accepted_total", "messages_accepted", "Messages answered with 250."),
    Measure("mailstack_messages_accepted_bytes_total", "octets_accepted", "Their content."),
    Measure("mailstack_deliveries_total", "deliveries", "Maildrops that they went to."),
    Measure("mailstack_messages_refused_total", "messages_refused", "Messages not taken, by reply.", "code"),
    Measure(
        "mailstack_recipients_refused_total",
        "recipients_refused",
        "Recipients and senders refused, by reply.",
        "code",
    ),
    Measure("mailstack_pop3_sessions_total", "pop3_sessions", "POP3 sessions that have ended."),
    Measure(
        "mailstack_pop3_connections_refused_total",
        "pop3_connections_refused",
        "POP3 connections turned away at once.",
    ),
    Measure("mailstack_pop3_logins_total", "logins", "Those that were let in."),
    Measure("mailstack_pop3_logins_refused_total", "logins_refused", "Wrong names and passwords."),
    Measure("mailstack_messages_retrieved_total", "retrieved", "Messages sent whole to mail programs."),
    Measure("mailstack_messages_retrieved_bytes_total", "retrieved_octets", "Their octets."),
    Measure("mailstack_messages_deleted_total", "deleted", "Messages that mail programs have deleted."),
)
"""Of each process, since it began."""

NOW: Final = (
    Measure("mailstack_smtp_connections", "smtp_connections", "SMTP and LMTP connections now."),
    Measure("mailstack_pop3_sessions", "pop3_sessions", "POP3 sessions now."),
    Measure("mailstack_in_flight_bytes", "octets_in_flight", "Octets of messages being received or stored."),
    Measure("mailstack_writer_queue_jobs", "writer_jobs", "What waits for its commit."),
    Measure("mailstack_writer_queue_bytes", "writer_octets", "The memory that it holds."),
    Measure(
        "mailstack_leftover_bytes", "leftover_octets", "Octets of deleted messages that wait to be removed."
    ),
    Measure("mailstack_resident_memory_bytes", "resident_octets", "Memory of the process."),
    Measure("mailstack_cpu_seconds_total", "cpu_seconds", "CPU time of the process."),
    Measure("mailstack_open_files", "open_files", "Open files and sockets of the process."),
)
"""Of each process, at this moment."""

COMMIT: Final = Measure(
    "mailstack_commit_seconds",
    "commits",
    "How long commits took, the wait for the disk included.",
)

STORE: Final = (
    Measure("mailstack_accounts", "accounts", "Accounts."),
    Measure("mailstack_stored_messages", "messages", "Messages in all maildrops."),
    Measure("mailstack_stored_bytes", "octets", "Their octets, shared content counted for each maildrop."),
    Measure("mailstack_free_bytes", "free_octets", "Free space on the disk of state_dir."),
    Measure("mailstack_reserve_bytes", "reserve_octets", "Free space below which no mail is taken."),
    Measure("mailstack_last_backup_timestamp_seconds", "last_backup", "When the last good backup ended."),
    Measure("mailstack_last_housekeeping_timestamp_seconds", "last_housekeeping", "When housekeeping ended."),
    Measure("mailstack_certificate_end_timestamp_seconds", "certificate_end", "When the certificate ends."),
)
"""Of the server as a whole."""

UP: Final = Measure("mailstack_up", "up", "1 where every process reads through the store, as /health asks.")
INFO: Final = Measure("mailstack_process_info", "info", "Always 1; what the process is.", "version, roles")

ALL: Final = (UP, INFO, *COUNTS, *NOW, COMMIT, *STORE)

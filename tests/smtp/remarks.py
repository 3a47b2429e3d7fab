"""What docs/smtp-beside-postfix.md says of each difference: which RFC has an opinion, and whom it backs."""

from __future__ import annotations

from typing import Final

_LENIENT: Final = "the grammar does not have it; Postfix is lenient (`strict_rfc821_envelopes = no`)"
_TWENTY: Final = "free (§4.2.1): Postfix hangs up after 20 mistakes, mailstack after 50"
_BARE: Final = "§2.3.8: only CRLF ends a line; Postfix takes LF for one in commands"
_CHUNK: Final = "free: RFC 3030 §2 leaves the code of a chunk without a transaction open"

REMARKS: Final = {
    "what is longer than a domain may be, or cannot be printed, is no name": (
        "§4.1.1.1: a Domain or an address literal; Postfix takes any text and edits it for `Received:`"
    ),
    "a refused EHLO leaves everything as it was": "as above: Postfix takes the name",
    "MAIL comes after EHLO or HELO, and not before": (
        "§4.1.4: EHLO or HELO comes first; Postfix wants it only with `smtpd_helo_required = yes`"
    ),
    "NOOP, HELP, EXPN, VRFY, RSET and QUIT need no EHLO": (
        "§4.5.1 does not demand HELP, §4.1.1.8 asks for it (SHOULD); Postfix has none"
    ),
    "commands without arguments have none": "§4.3.2 has 501 for it; Postfix takes `QUIT please`",
    "VRFY tells nobody who is there": (
        "§7.3 allows either; Postfix tells strangers which names exist (`disable_vrfy_command = no`)"
    ),
    "a command that is not known is 500, one that is not implemented 502": (
        "§4.1.1: a verb begins the line; Postfix bears with a blank before it"
    ),
    "a reverse-path that does not follow the grammar is refused": _LENIENT,
    "a forward-path that does not follow the grammar is refused": _LENIENT,
    "local-part, domain and path have their limits": (
        "§4.5.3.1.3 is the least that a server takes, not the most: Postfix takes more"
    ),
    "source routes are taken and ignored": "free: 550 and 554 both refuse for good",
    "an address literal may be a sender, and is no domain of ours": (
        "Postfix takes the literal of its own address for itself, as §4.1.3 allows"
    ),
    "parameters that are not known are 555, those that are no parameters 501": (
        "Postfix announces DSN (RFC 3461), mailstack does not"
    ),
    "nothing is relayed": "free: 550 and 554 both refuse for good",
    "a bare postmaster is taken, in any case": (
        "§4.1.1.3 has only `Postmaster` without a domain; Postfix adds its own to any name"
    ),
    "postmaster and abuse of the name in our greeting are there, though it is no domain of ours": (
        "free: §4.5.1 asks for it where mail is taken for that name; Postfix has no `mydestination` here"
    ),
    "postmaster and abuse of every domain reach the first account": (
        "free: `Delivered-To` names the recipient here, the maildrop there"
    ),
    "a mailbox whose quota is used up is refused for a while, and the others are not": (
        "Postfix itself has no quotas; its table knows the one address, not its other names"
    ),
    "the announced size is held against the quota": "Postfix itself has no quotas",
    "an alias leads to all its targets, through other aliases, each once": (
        "free: `Delivered-To` names the recipient here, the maildrop there"
    ),
    "a line that is no field, and stands behind some, is kept as it is": (
        "free: Postfix puts an empty line before it, and the rest is body to everybody"
    ),
    "8-bit octets, NUL and long lines are kept octet for octet": (
        "Postfix removes NUL (`message_strip_characters`), which RFC 5321 §2.4 allows nobody but the author"
    ),
    "in content a bare LF becomes CRLF, and a bare CR a space": (
        "free: Postfix takes a CR before CRLF for a part of the line end"
    ),
    "a message that has passed through a hundred servers goes in circles": (
        "§6.3: at least 100 fields; Postfix stops at 50 (`hopcount_limit`)"
    ),
    "a message over the limit is read to its end and then refused; the session goes on": (
        "RFC 1870 §6.1: the size that SIZE announces is the sender's octets; Postfix counts its own fields in"
    ),
    "a whole transaction in one segment is answered in order": "§4.1.4: EHLO or HELO comes before MAIL",
    "a message announced as too large is refused at MAIL": "RFC 1870 §3: 20 digits; both refuse for good",
    "BODY is 7BIT or 8BITMIME": "free: 501 and 555 both refuse for good",
    "with SMTPUTF8 addresses may be UTF-8, in any case and any form": (
        "RFC 6531 §3.7.1 leaves it to the receiver; Postfix folds neither case nor form of UTF-8 in tables"
    ),
    "without SMTPUTF8 they may not": "RFC 6531 §3.5: refused; Postfix asks only with `strict_smtputf8 = yes`",
    "an empty message, and one that does not end with CRLF": (
        "RFC 3030 §2: a chunk size is any number; Postfix refuses a chunk of none that is not the last"
    ),
    "after refused recipients the octets of pipelined chunks are read and dropped": _CHUNK,
    "a recipient that comes after the first chunk is refused: half a message is delivered to nobody": _CHUNK,
    "chunks outside a transaction are dropped, and leave nothing behind": (
        "free: Postfix wants RSET after a chunk that it refused"
    ),
    "a BDAT that says no number cannot be followed": "free: both refuse for good and hang up",
    "a chunk that makes the message too large": "as with DATA, Postfix counts its own fields in",
    "a bare LF does not end a command": _BARE,
    "a peer that says nothing but LF is told at once": _BARE,
    "a bare CR does not end a command, and does not come back in a reply": (
        "§2.3.8: CR and LF only together; Postfix takes the CR for a part of the argument"
    ),
    "a tab within a command is a mistake, and the session goes on": (
        "§4.1.1: one space stands between words; Postfix takes any white space"
    ),
    "a BDAT with a tab in it cannot be followed: its octets are no commands": (
        "§4.1.1 as above: Postfix reads the chunk, which mailstack does not try"
    ),
    "control characters in a command": "both refuse; mailstack hangs up, too",
    "characters that would break a line or a terminal are in no address": (
        "RFC 6531 §3.3 allows C1 controls; mailstack does not have them in fields and logs"
    ),
    "a line that is too long is dropped to its end, and its tail is no command": (
        "§4.5.3.1.4: 512 octets and extensions; Postfix takes what fits into 2,048 and drops the rest"
    ),
    "a line of 2,048 octets is taken, however often EHLO is said": "as above",
    "a line without an end ends the session": "as above: Postfix goes on reading",
    "a BDAT that is too long cannot be followed: its octets are no commands": (
        "as above: Postfix takes what fits, and reads the chunk"
    ),
    "a request of HTTP that is too long for a command ends the session, too": (
        "free: both hang up; a success code for a refusal is Postfix's joke"
    ),
    "a bare LF within a line that is too long": _BARE,
    "a request of HTTP ends the session, whatever comes with it": (
        "free: both hang up; a success code for a refusal is Postfix's joke"
    ),
    "mail within a request of HTTP is not taken": "as above",
    "a TLS handshake on the plain port": "free: Postfix waits for the end of the line",
    "fifty mistakes are borne with, and not one more": _TWENTY,
    "guessing names ends the session": _TWENTY,
    "empty lines and lines that are too long are mistakes, too": _TWENTY,
    "a message that is accepted clears the count": _TWENTY,
    "AUTH is not offered, in a transaction or out of it, and guesses are mistakes": (
        "§4.2.4: 500 or 502 for what is not implemented; Postfix has 503"
    ),
    "STARTTLS, and nothing is remembered from before": (
        "RFC 3207 §4.2 wants the state of the beginning; Postfix needs no EHLO in either"
    ),
    "STARTTLS has no argument, and comes after EHLO": "§4.1.4 puts EHLO first; Postfix asks for none",
    "commands sent behind STARTTLS in the clear are never obeyed": (
        "RFC 3207 §4.2: never obeyed; Postfix drops them and goes on, mailstack tells and hangs up"
    ),
    "not even the beginning of one": "as above",
    "nor a great many of them": "as above",
}
"""By the behaviour that a transcript shows."""

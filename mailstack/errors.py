"""The facts that can go wrong, named once; each protocol has its own table from fact to reply.

Lower floors raise these and know no reply code. `Temporary` means the same request may succeed
later, `Permanent` that it will not; whatever is neither is our own fault and counts as temporary.
"""

from __future__ import annotations


class MailstackError(Exception):
    """A failure that we can name; its text is one plain sentence, fit for a person."""


class Temporary(MailstackError):
    """The same request may succeed later."""


class Permanent(MailstackError):
    """The same request will never succeed."""


# -- the store -----------------------------------------------------------------------------------


class StoreUnavailable(Temporary):
    """The database does not answer, is locked, or refused the statement for a reason of its own."""


class StoreReadOnly(StoreUnavailable):
    """The database can be read, and not written."""


class StoreDamaged(StoreUnavailable):
    """The database's file is not what was written to it; what lies elsewhere in it can still be had."""


class StoreContended(StoreUnavailable):
    """The database has undone a transaction for another one's sake; doing it again is all it takes."""


class StoreCutOff(StoreUnavailable):
    """The connection to the database broke: what it had begun is undone, unless it had sent its COMMIT."""


class StoreBusy(Temporary):
    """More octets wait for the writer than memory may hold."""


class StoreFull(Temporary):
    """The disk has less free space than the reserve."""


class SchemaMismatch(Permanent):
    """The database's schema is not the one this program was written for."""


class MessageGone(Permanent):
    """An entry's content is no longer in the store."""


class MessageDamaged(MessageGone):
    """The content is not what was deposited: the disk has lost or changed octets of it."""


# -- routing and delivery ------------------------------------------------------------------------


class NoSuchMailbox(Permanent):
    """The domain is ours, the local-part is nobody's."""


class AccountsRemoved(NoSuchMailbox):
    """Accounts were removed while their mail was on the way; of the message nothing is stored."""

    def __init__(self, text: str, account_ids: frozenset[int] = frozenset()) -> None:
        super().__init__(text)
        self.account_ids = account_ids


class RecipientRemoved(Temporary):
    """One of several recipients is no longer there, which only RCPT can say; nothing is stored."""


class NotOurDomain(Permanent):
    """The domain is not served here, and we relay for nobody."""


class MailboxDisabled(Permanent):
    """The account exists and an administrator has disabled it."""


class MaildropFull(Temporary):
    """The message does not fit into the account's quota."""


class MaildropFilled(MaildropFull):
    """A maildrop has got full since RCPT, which alone can say whose; of the message nothing is stored."""


class NoPostmaster(Temporary):
    """Mail for postmaster came before the first account was made."""


class MessageTooBig(Permanent):
    """The content has more octets than `[smtp] max_message_size` allows."""


class HeaderTooBig(Permanent):
    """The header of the content has more octets than `[smtp] max_header_size` allows."""


class BareNewline(Permanent):
    """The content has a CR or LF that is no line end, and the settings say to refuse that."""


class MailLoop(Permanent):
    """The content has passed through so many servers that it must be going in circles."""


# -- the maildrop and logging in -----------------------------------------------------------------


class LoginRefused(Permanent):
    """Wrong password or unknown name: deliberately one fact, so that no reply can tell them apart."""


class BadResponse(Permanent):
    """What a client sent in a SASL exchange is not what the mechanism asks for (RFC 4422 §3)."""


class TooManyGuesses(Temporary):
    """So many logins of one name from one address wait already that no more may."""


class MaildropInUse(Temporary):
    """Another session holds the exclusive lock of the maildrop (RFC 1939 §4)."""


class LoggedInLately(Temporary):
    """The last login was less than `[pop3] login_delay` ago (RFC 2449 §6.5)."""


# -- administration ------------------------------------------------------------------------------


class AlreadyThere(Permanent):
    """What should be made exists already."""


class NotFound(Permanent):
    """What a command names does not exist."""


class StillInUse(Permanent):
    """What should be removed is still needed by something else."""


class BadAddress(Permanent):
    """The text is not an address of RFC 5321 §4.1.2."""


class BadSender(BadAddress):
    """A reverse-path that is none."""


class BadParameter(Permanent):
    """A parameter of MAIL or RCPT does not follow RFC 5321 §4.1.2, or is given twice."""


class UnknownParameter(Permanent):
    """An ESMTP parameter of an extension that we do not have (RFC 5321 §4.1.1.11)."""


class Utf8NotAskedFor(Permanent):
    """An address that is not ASCII in a transaction that did not say SMTPUTF8 (RFC 6531 §3.5)."""


class BadTarget(Permanent):
    """An alias may not point there: outside our domains, or back to itself."""


class BadSetting(Permanent):
    """A key of the settings file, or of the environment, is unknown or has an impossible value."""


class BadPassword(Permanent):
    """A password that is empty, or that no client could send."""


class AcmeFailed(Temporary):
    """The certificate authority gave no certificate; the text says why, as it did."""


class CannotListen(Permanent):
    """An address cannot be bound: it is taken, or not ours to take."""


class BadData(Permanent):
    """A file that was to be read in does not hold what it should."""


class AlreadyRunning(Temporary):
    """Another process does this work now."""


class NotRunning(Temporary):
    """No process of the service answers on this host."""

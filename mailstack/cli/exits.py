"""Exit codes: one table from the facts that went wrong to sysexits(3), and one sentence for people."""

from __future__ import annotations

import errno
import logging
import os
import pwd
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mailstack import errors


class Usage(Exception):
    """The command line lacks something, or says two things at once."""


class Unconfirmed(Exception):
    """The person who was asked did not say yes."""


# The first row that fits counts, so what is special stands before what is general.
EXITS: dict[type[BaseException], int] = {
    errors.BadSetting: os.EX_CONFIG,
    errors.SchemaMismatch: os.EX_CONFIG,
    errors.BadAddress: os.EX_DATAERR,
    errors.BadTarget: os.EX_DATAERR,
    errors.StillInUse: os.EX_DATAERR,
    errors.MessageGone: os.EX_DATAERR,
    errors.AlreadyThere: os.EX_CANTCREAT,
    errors.NotFound: os.EX_NOUSER,
    errors.NotOurDomain: os.EX_NOUSER,
    errors.NoSuchMailbox: os.EX_NOUSER,
    errors.StoreUnavailable: os.EX_UNAVAILABLE,
    errors.NotRunning: os.EX_UNAVAILABLE,
    errors.AcmeFailed: os.EX_UNAVAILABLE,
    errors.CannotListen: os.EX_UNAVAILABLE,
    errors.Temporary: os.EX_TEMPFAIL,
    errors.Permanent: os.EX_DATAERR,
    Usage: os.EX_USAGE,
    Unconfirmed: 1,
    PermissionError: os.EX_NOPERM,
    FileNotFoundError: os.EX_NOINPUT,
    FileExistsError: os.EX_CANTCREAT,
    OSError: os.EX_IOERR,
    Exception: os.EX_SOFTWARE,
}


def exit_code(error: BaseException) -> int:
    """The exit code that says what happened to a script."""
    return next(code for kind, code in EXITS.items() if isinstance(error, kind))


def obey(command: Callable[[], int], *, debug: bool) -> int:
    """Run a command; an error becomes a sentence on standard error and its exit code."""
    began_as = os.geteuid()
    if sys.stdout is None or sys.stderr is None:
        _stand_in()
    try:
        code = command()
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return 130  # what shells say of a command that SIGINT ended
    except BrokenPipeError:
        # The reader (`head`, a pager) has seen enough; the interpreter must not fail on flushing.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if debug:
            traceback.print_exc()
        complain(error, began_as)
        return exit_code(error)


def complain(error: Exception, began_as: int) -> None:
    """Say on standard error what went wrong, and what mends it for the user who began the command."""
    for line in (sentence(error) + _advice(error, began_as)).splitlines():
        print(f"mailstack: {line}", file=sys.stderr)


def _stand_in() -> None:
    """For what whoever started us has closed: what is said there nobody wants to hear."""
    nowhere = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 until the process ends
    sys.stdout = sys.stdout or nowhere
    sys.stderr = sys.stderr or nowhere


@contextmanager
def told(*, debug: bool) -> Iterator[None]:
    """Tell a person, in a sentence, what the service would write to its log as failed; each once."""
    handler = _Told(debug=debug)
    logger = logging.getLogger("mailstack")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


class _Told(logging.Handler):
    def __init__(self, *, debug: bool) -> None:
        super().__init__(logging.WARNING)
        self._debug = debug
        self._said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        said = record.getMessage()
        if isinstance(error, Exception):
            said += f": {sentence(error)}"
            if self._debug:
                traceback.print_exception(error)
        if said not in self._said:
            self._said.add(said)
            print(f"mailstack: {said}", file=sys.stderr)


def myself() -> str:
    """The name of the user that this command acts as."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:  # a user without a name, as containers have them
        return str(os.geteuid())


@contextmanager
def advised(path: Path) -> Iterator[None]:
    """Where files may not be read, say by whom: a command that root runs becomes the mail's owner."""
    try:
        yield
    except PermissionError as error:
        raise PermissionError(
            errno.EACCES,
            f"the user that owns state_dir, {myself()}, does this work and may not read that;"
            f" make a copy for it: cp -a {path} COPY && chown -R {myself()} COPY",
            error.filename,
        ) from error


def sentence(error: Exception) -> str:
    """What went wrong, for a person."""
    if isinstance(error, (errors.MailstackError, Usage)):
        return str(error)
    if isinstance(error, Unconfirmed):
        return "nothing was changed"
    if isinstance(error, OSError) and error.strerror:
        place = f"{error.filename}: " if error.filename is not None else ""
        # Root's commands become the owner of state_dir: who was refused is what root has to know.
        refused = f" to the user {myself()}" if error.strerror == os.strerror(errno.EACCES) else ""
        return f"{place}{error.strerror}{refused}"
    return f"this is a fault of mailstack (mailstack --debug tells more): {type(error).__name__}: {error}"


def _advice(error: Exception, began_as: int) -> str:
    """What mends it where a file or folder was refused; root's commands become the owner of the mail."""
    if not isinstance(error, OSError) or not isinstance(error.filename, str):
        return ""
    if error.errno == errno.EROFS:
        return "; if the disk is not, the service's unit keeps it from writing there: docs/systemd.md"
    if error.strerror != os.strerror(errno.EACCES):  # or it comes with an advice of its own: see `advised`
        return ""
    if began_as != 0:
        return "; run this as root (sudo)"
    place = Path(os.path.abspath(error.filename))
    for folder in reversed(place.parents):
        if not os.access(folder, os.X_OK):
            return f", who may not go into {folder}: name another place, one below /var/lib/mailstack say"
    if os.path.lexists(place):
        return ""
    folder = place.parent / "FOLDER" if place.suffix else place
    return f"; make it first: install -d -o {myself()} {folder}"

"""What every command needs: the settings, and the database as the user that the service runs as."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from mailstack import settings
from mailstack.errors import BadSetting
from mailstack.settings import Reading, Settings

if TYPE_CHECKING:
    from mailstack.store.engine import Database


@dataclass(frozen=True)
class Admin:
    """One run of the command line: where the settings are, and how much to tell about a fault."""

    config: Path
    debug: bool = False
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)

    @property
    def settings(self) -> Settings:
        """The settings as they were when they were first asked for; raises BadSetting."""
        return self.reading.settings

    @cached_property
    def reading(self) -> Reading:
        """The settings and where each of them comes from; raises BadSetting.

        They are read once: root has credentials that the owner of the mail, who it turns into, may not read.
        """
        if self.config == settings.DEFAULT_PATH and not self.config.exists():
            raise BadSetting(
                f"there is no settings file {self.config}; name one with --config FILE or MAILSTACK_CONFIG,"
                " or make one with mailstack setup"
            )
        return settings.read(self.config, self.environ)

    def reread(self) -> Settings:
        """The settings as they are now; credentials that are hidden by now stay. Raises BadSetting."""
        return settings.read(self.config, self.environ, self.reading.credentials).settings

    @contextmanager
    def database(self, *, any_schema: bool = False, make: bool = False) -> Iterator[Database]:
        """The database, opened as its owner and, unless `any_schema`, at this program's schema.

        `make`: one that is not there yet is made, empty.
        """
        from mailstack.store import schema
        from mailstack.store.engine import Database

        found = self.settings
        become_owner(found.state_dir)
        database = Database(found.url, may_only_read=True)
        try:
            if not make:
                _refuse_missing(database)
            if not any_schema:
                with database.reading() as connection:
                    schema.check(connection)
            yield database
        finally:
            database.dispose()

    def backups(self, folder: Path | None) -> Path:
        """The folder that was named; else the one in the settings, which state_dir's owner alone may open."""
        if folder is not None:
            return folder
        become_owner(self.settings.state_dir)
        return self.settings.backup.folder


def config_path(given: str | None, environ: Mapping[str, str]) -> Path:
    """Where the settings are: as the option says, else the environment, else the usual place."""
    return Path(given or environ.get("MAILSTACK_CONFIG") or settings.DEFAULT_PATH)


def become_owner(state_dir: Path) -> None:
    """As root, turn into the user whose mail it is: a file of root's would lock the service out."""
    try:
        owner = state_dir.stat()
    except FileNotFoundError as error:
        raise BadSetting(f"state_dir: there is no folder {state_dir}; mailstack setup makes it") from error
    if os.geteuid() != 0 or owner.st_uid == 0:
        return
    try:
        os.initgroups(pwd.getpwuid(owner.st_uid).pw_name, owner.st_gid)
    except KeyError:  # a user without a name, as containers have them
        os.setgroups([owner.st_gid])
    os.setgid(owner.st_gid)
    os.setuid(owner.st_uid)


def _refuse_missing(database: Database) -> None:
    # SQLite would make an empty file of whatever name a slip of the pen gave.
    if database.path is not None and not Path(database.path).exists():
        database.require_file_of_log()
        raise BadSetting(f"there is no database {database.path}; mailstack database upgrade makes one")

"""The settings for certificates by ACME."""

from __future__ import annotations

from dataclasses import dataclass

from mailstack import values
from mailstack.settings.field import key
from mailstack.values import Listen


@dataclass(frozen=True, slots=True)
class Acme:
    """Certificates from an authority that speaks ACME (RFC 8555), for `mailstack certificate`."""

    directory: str = key(
        values.text, "https://acme-v02.api.letsencrypt.org/directory", "The URL of the authority's directory."
    )
    listen: tuple[Listen, ...] = key(
        values.listeners,
        ["[::]:80"],
        "Where the authority finds us while it checks; it asks port 80.",
    )

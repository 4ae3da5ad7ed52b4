"""Who may watch: on this machine everybody who is logged in, from elsewhere who has the token."""

from __future__ import annotations

import contextlib
import hmac
import ipaddress
import os
import re
import secrets
import socket
from pathlib import Path
from urllib.parse import urlsplit

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.user_folders import data_folder

_TOKEN = re.compile(r"[A-Za-z0-9_-]{22}")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+)(?::\d{1,5})?")
_OF_THIS_MACHINE = ("localhost", "127.0.0.1", "[::1]")


class Access:
    """The rules for one address that is listened on.

    A loopback address needs no token, but the name under which it is called must be one of this machine's own: else a
    foreign page whose name is made to lead here (DNS rebinding) would get in.

    Args:
        address: an IP address, or localhost.
        token: asked of every page; None only on a loopback address.

    Raises:
        LightTrackError: no address; or one that others reach, without a token.
    """

    def __init__(self, address: str, token: str | None) -> None:
        self.local = is_loopback(address)
        if not self.local and not token:
            raise LightTrackError(f"address {address}: others may reach it, which needs a token")
        self._token = token

    @property
    def needs_token(self) -> bool:
        """Whether a page has to show one."""
        return self._token is not None

    def knows_host(self, host: str) -> bool:
        """Whether a request's Host header may be answered."""
        found = _HOST.fullmatch(host)
        return found is not None and (not self.local or found[1].lower() in _OF_THIS_MACHINE)

    def is_own(self, origin: str, host: str) -> bool:
        """Whether a page of this origin is ours: served under the very name and port that it calls."""
        try:
            parts = urlsplit(origin)
        except ValueError:
            return False
        return parts.scheme in ("http", "https") and parts.netloc.lower() == host.lower()

    def admits(self, token: str) -> bool:
        """Whether the token is right; the time that this takes tells nothing of it."""
        return self._token is None or hmac.compare_digest(self._token.encode(), token.encode())


def is_loopback(address: str) -> bool:
    """Whether only processes of this machine reach an address.

    Raises:
        LightTrackError: it is no IP address, nor localhost.
    """
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        raise LightTrackError(
            f"address {address!r}: expected an IP address of this machine, 0.0.0.0 (all of them) or localhost"
        ) from None


def kept_token(path: Path | None = None) -> str:
    """The user's token, made where there is none: it stays, so that a tablet finds its way back after a restart.

    Args:
        path: where it is kept, readable for this user alone; None: among the user's data.

    Raises:
        LightTrackError: it can be neither read nor written.
    """
    path = path or data_folder() / "viewer_token"
    try:
        with contextlib.suppress(FileNotFoundError):
            mine = path.stat().st_uid == os.getuid() and not path.stat().st_mode & 0o077
            if mine and _TOKEN.fullmatch(token := path.read_text(encoding="ascii", errors="replace").strip()):
                return token
            path.unlink()  # others may have read it
        path.parent.mkdir(parents=True, exist_ok=True)
        token = secrets.token_urlsafe(16)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
            file.write(token + "\n")
        return token
    except OSError as error:
        raise LightTrackError(f"{path}: the viewer's token cannot be kept there ({error.strerror})") from None


def urls(address: str, port: int, token: str | None) -> list[str]:
    """Where the page is, for somebody to type: the token is behind a #, which no browser sends anywhere."""
    secret = "" if token is None else f"#{token}"
    if not ipaddress.ip_address("127.0.0.1" if address == "localhost" else address).is_unspecified:
        hosts = [address]
    else:
        hosts = [*_outgoing(address), socket.gethostname(), "localhost"]
    return [f"http://{f'[{host}]' if ':' in host else host}:{port}/{secret}" for host in hosts]


def _outgoing(address: str) -> list[str]:
    """This machine's address in its network, as far as it has a route to anywhere; nothing is sent."""
    family, elsewhere = (socket.AF_INET6, "2001:db8::1") if ":" in address else (socket.AF_INET, "192.0.2.1")
    with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((elsewhere, 9))
        return [str(probe.getsockname()[0])]
    return []

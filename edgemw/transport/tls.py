"""The TLS side of a link."""

from __future__ import annotations

import os
import ssl

from edgemw.core.errors import LinkError
from edgemw.transport.settings import TlsSettings


class _TidySocket(ssl.SSLSocket):
    """Closes itself when the handshake fails; paho would leave it to the garbage collector."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except OSError:
            self.close()
            raise


def tls_context(tls: TlsSettings) -> ssl.SSLContext:
    """Certificates and rules for one connection; read again each time, so that renewed files count without a restart.

    Raises:
        LinkError: a file is missing or not what it should be.
    """
    try:
        context = ssl.create_default_context(cafile=tls.ca)
        if tls.cert is not None:
            context.load_cert_chain(tls.cert, tls.key)
    except ssl.SSLError as error:
        if error.reason != "KEY_VALUES_MISMATCH":
            raise LinkError(
                f"certificates cannot be loaded ({error})", where=_blamed(tls), hint="PEM files are expected"
            ) from error
        hint = "were both copied from the same folder?"
        raise LinkError("tls.cert and tls.key do not belong together", where=_blamed(tls), hint=hint) from error
    except OSError as error:
        reason = f"certificates cannot be read ({error.strerror or error})"
        raise LinkError(reason, where=_blamed(tls), hint="are these files there, and may this user read them?") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.sslsocket_class = _TidySocket
    return context


def _blamed(tls: TlsSettings) -> str:
    """The files that are missing or cannot be read, or else all of them."""
    paths = [path for path in (tls.ca, tls.cert, tls.key) if path is not None]
    return ", ".join(str(path) for path in paths if not os.access(path, os.R_OK)) or ", ".join(map(str, paths))

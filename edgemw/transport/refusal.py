"""Why a broker could not be used, in words that help: from operating system, TLS and MQTT reasons to errors."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Sequence

from edgemw.core.errors import LinkError
from edgemw.transport.connection import BrokerUnreachable

# Reason codes of MQTT 5.0, section 2.4.
UNSUPPORTED_PROTOCOL = 0x84
SESSION_TAKEN_OVER = 0x8E
_FOR_GOOD = {
    0x84: ("the broker does not speak this version of MQTT", 'set protocol = "auto"'),
    0x85: ("the client id was refused", "is it too long, or reserved for another user?"),
    0x86: ("wrong user name or password", "check the user name and the password of this node"),
    0x87: ("not authorised", "does the broker know this user, and is the password right?"),
    0x8A: ("this client is banned", "ask whoever runs the broker"),
    0x8C: ("the authentication method was refused", "the broker wants another way to log in"),
    0x90: ("the topic of the will was refused", "check the access rules of the broker"),
    0x95: ("the CONNECT packet is too large", "make the will smaller"),
}
# X509_V_ERR_* of OpenSSL, as `ssl.SSLCertVerificationError.verify_code` gives them.
_CERTIFICATE = {
    9: ("the broker's certificate is not valid yet", "is the clock of this machine right?"),
    10: ("the broker's certificate has expired", "renew it, or check the clock of this machine"),
    18: ("the broker's certificate is self-signed", "give it as tls.ca if it is the right one"),
    19: ("the broker's certificate is from an unknown authority", "give the authority's certificate as tls.ca"),
    20: ("the broker's certificate is from an unknown authority", "give the authority's certificate as tls.ca"),
    62: ("the broker's certificate is for another host name", "use the name that the certificate was made for in the URL"),
    64: ("the broker's certificate is for another address", "use the name that the certificate was made for in the URL"),
}


def from_exception(error: Exception, where: str) -> LinkError:
    """The error to raise when a connection could not be opened: for good, or BrokerUnreachable."""
    match error:
        case ssl.SSLCertVerificationError():
            what, hint = _CERTIFICATE.get(error.verify_code, ("the broker's certificate was refused", error.verify_message))
            return LinkError(what, where=where, hint=hint)
        case ssl.SSLError() if not isinstance(error, ssl.SSLEOFError):
            return _from_tls(error, where)
        case ssl.SSLEOFError() | ConnectionResetError() | BrokenPipeError() if where.startswith("mqtts:"):
            hint = "does this port speak TLS, and does the broker want a client certificate (tls.cert, tls.key) that holds?"
            return BrokerUnreachable("the broker hung up on TLS", where=where, hint=hint)
        case socket.gaierror():
            return BrokerUnreachable("the host name is not known", where=where, hint="check the URL and the name server")
        case ConnectionRefusedError():
            return BrokerUnreachable("the connection was refused", where=where, hint="is the broker running, on this port?")
        case TimeoutError():
            return BrokerUnreachable("no answer in time", where=where, hint="is the address right, is a firewall in between?")
        case _:
            return BrokerUnreachable(f"cannot connect ({error})", where=where, hint="is the network up?")


def of_all(refusals: Sequence[LinkError]) -> LinkError:
    """The error to raise when no server of a cluster could be used; trying again may help if it may with one of them."""
    if len(refusals) == 1:
        return refusals[0]
    kind = BrokerUnreachable if any(isinstance(error, BrokerUnreachable) for error in refusals) else LinkError
    where = ", ".join(f"{error.where} ({error.what})" for error in refusals)
    hint = f"{refusals[-1].hint}; where the cluster has just lost a server: try again in ten seconds"
    return kind("no server of the cluster can be used", where=where, hint=hint)


def _from_tls(error: ssl.SSLError, where: str) -> LinkError:
    reason = error.reason or str(error)
    if "CERTIFICATE_REVOKED" in reason.upper():
        return LinkError("the broker says that this certificate is revoked", where=where, hint="ask its authority for another")
    if "ALERT" in reason.upper():
        return LinkError(
            f"the broker refused our side of TLS ({reason})",
            where=where,
            hint="it may want a client certificate (tls.cert, tls.key) from an authority that it knows",
        )
    if "WRONG_VERSION_NUMBER" in reason or "RECORD_LAYER" in reason:
        return LinkError("the broker does not speak TLS", where=where, hint="use mqtt:// or the port with TLS")
    return BrokerUnreachable(f"TLS failed ({reason})", where=where, hint="look into the log of the broker")


def from_connack(code: int, name: str, where: str) -> LinkError:
    """The error for a CONNACK that is not a success."""
    if code in _FOR_GOOD:
        what, hint = _FOR_GOOD[code]
        return LinkError(what, where=where, hint=hint)
    return BrokerUnreachable(f"the broker answered {name!r}", where=where, hint="it may serve this node later")

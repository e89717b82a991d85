"""Logs on stderr, one record a line, as text for people or as JSON for machines.

    2026-01-01T12:00:00Z level=warning node=device-0 msg="link down: timed out" task=digits

A record's facts come by `log.info("...", extra={"facts": {...}})`. What looks like a secret is never written.
"""

from __future__ import annotations

import json
import logging
import math
import re
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

HIDDEN = "***"
_SECRET_NAME = re.compile(
    r"(?i)(^|[_.-])(pass|passwd|password|passphrase|secret|token|credential|credentials|key|authorization)$"
)
_SECRET_TEXT = (
    (re.compile(r"(?<=://)[^/\s@]*@"), f"{HIDDEN}@"),  # a name and password in a URL
    (re.compile(r"(?i)\b(password|passwd|secret|token)(\s*[=:]\s*)[^\s,;&]+"), rf"\1\2{HIDDEN}"),
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL), HIDDEN),
)
_PLAIN = re.compile(r"[^\s\"'=\\\x00-\x1f\x7f]+\Z")


class EdgeFormatter(logging.Formatter):
    """What both formats share: the fields of a record, in order, without secrets."""

    def __init__(self, node: str) -> None:
        super().__init__()
        self._node = node

    def fields(self, record: logging.LogRecord) -> dict[str, Any]:
        """Level, node, message, the record's facts, and the error if there is one."""
        fields: dict[str, Any] = {"level": record.levelname.lower()}
        if self._node:
            fields["node"] = self._node
        fields["msg"] = hide(record.getMessage())
        facts = getattr(record, "facts", None)
        if isinstance(facts, Mapping):
            for name, value in facts.items():  # a fact never takes the place of one of ours
                fields[f"fact_{name}" if name in fields else str(name)] = _safe(str(name), value)
        if record.exc_info:
            fields["error"] = hide(self.formatException(record.exc_info))
        return fields

    def moment(self, record: logging.LogRecord) -> str:
        """When it was, in UTC."""
        return datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class TextFormatter(EdgeFormatter):
    """`key=value` pairs; a traceback follows on lines of its own, indented."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        fields = self.fields(record)
        trace = str(fields.pop("error", ""))
        line = " ".join([self.moment(record), *(f"{name}={_quoted(name, value)}" for name, value in fields.items())])
        return line + "".join(f"\n    {part}" for part in trace.splitlines())


class JsonFormatter(EdgeFormatter):
    """One JSON object, on one line."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        return json.dumps({"time": self.moment(record)} | self.fields(record), default=str)


class _Handler(logging.StreamHandler[Any]):
    """Ours, so that `configure` can find and replace it."""


def configure(level: str, format: Literal["text", "json"], node: str) -> None:
    """Log to stderr from now on, instead of what an earlier call said.

    Args:
        level: debug, info, warning or error.
        format: text or json.
        node: id of the node; "" where there is none.
    """
    handler = _Handler(sys.stderr)
    handler.setFormatter(JsonFormatter(node) if format == "json" else TextFormatter(node))
    root = logging.getLogger()
    for old in [old for old in root.handlers if isinstance(old, _Handler)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger("edgemw").setLevel(level.upper())


def hide(text: str) -> str:
    """The text without what looks like a password, a token or a private key."""
    for pattern, instead in _SECRET_TEXT:
        text = pattern.sub(instead, text)
    return text


def _safe(name: str, value: Any) -> Any:
    if _SECRET_NAME.search(name):
        return HIDDEN
    if value is None or isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return hide(str(value))  # JSON has no NaN


def _quoted(name: str, value: Any) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if name != "msg" and _PLAIN.match(text) else json.dumps(text)

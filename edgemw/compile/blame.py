"""When an export fails: which operator, and which part of the author's module called it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.module_tracker import ModuleTracker

from edgemw.core.errors import ExportError

_OPERATOR = re.compile(r"op='(?P<quoted>\w+\.\w+)'|(?:torch\.ops\.)?(?P<plain>aten\.\w+)")
_REASON_LENGTH = 300
_VALUE_OF_A_TENSOR = "aten._local_scalar_dense"


@contextmanager
def blamed(run: Callable[..., Any], arguments: Sequence[Tensor]) -> Iterator[None]:
    """Turn any failure inside into an ExportError that names the operator and the module.

    Args:
        run: the function that is being exported; it is run once more, on `arguments`, to find the module.
    """
    try:
        yield
    except ExportError:
        raise
    except Exception as error:  # the exporter documents no closed set of errors
        chain = list(_chain(error))
        operator = next((name for name in map(_operator, chain) if name), None)
        module = None if operator is None else module_of(operator, run, arguments)
        raise ExportError(_reason(chain), operator=operator, module=module) from error


def module_of(operator: str, run: Callable[..., Any], arguments: Sequence[Tensor]) -> str | None:
    """Dotted path of the innermost module that calls `operator` ("aten.name") first, forward or backward; None if none does."""
    with ModuleTracker() as tracker, _Census(tracker) as census:
        run(*arguments)
    found: str | None = census.modules.get(operator)
    return found


class _Census(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves its hooks untyped
    """Notes for each operator in which module it was first called."""

    def __init__(self, tracker: ModuleTracker) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # as above
        self._tracker = tracker
        self.modules: dict[str, str] = {}

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name = str(func.overloadpacket)
        if name not in self.modules:
            # the tracker writes "Class.path.of.part" and "Global"
            parts = {p.partition(".")[2] for p in self._tracker.parents if p != "Global"}
            self.modules[name] = max(parts, key=len, default="")
        return func(*args, **(kwargs or {}))


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The errors from the root cause outwards."""
    below = error.__cause__ or error.__context__
    if below is not None:
        yield from _chain(below)
    yield error


def _operator(error: BaseException) -> str | None:
    if isinstance(error, GuardOnDataDependentSymNode):
        return _VALUE_OF_A_TENSOR
    packet = getattr(getattr(error, "func", None), "overloadpacket", None)
    if packet is not None:
        return str(packet)
    found = _OPERATOR.search(str(error))
    return None if found is None else found["quoted"] or found["plain"]


def _reason(chain: Sequence[BaseException]) -> str:
    """The first sentence of the root cause."""
    root = chain[0]
    if any(isinstance(error, GuardOnDataDependentSymNode) for error in chain):
        return "cannot be exported: the module's path depends on values in its data"
    text = next((line.strip() for line in str(root).splitlines() if line.strip()), type(root).__name__)
    return f"cannot be exported ({text[:_REASON_LENGTH]})"

"""Where an operation runs: in which module of a model, which layer of it, and which time step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from minirnn.nn.module import Module
    from minirnn.nn.packing import Packing


class Place(NamedTuple):
    """Where an operation runs, as far as that is known.

    Args:
        module: the innermost module that is being called.
        part: of a recurrent module the layer and direction, "l0" or "l0_reverse" as in the names of its parameters; else "".
        step: the time step, where operations run one step at a time.
        packing: how the rows of a recurrent layer lie, for whoever wants them back by sequence and step.
    """

    module: Module | None = None
    part: str = ""
    step: int | None = None
    packing: Packing | None = None

    @property
    def name(self) -> str:
        """As "encoder.l0": the module's path in the model that holds it, and the part; a root without parts by its class; else ""."""
        if self.module is None:
            return self.part
        return ".".join(filter(None, (self.module.path(), self.part))) or type(self.module).__name__

    def __str__(self) -> str:
        return ", time step ".join([self.name] + ([] if self.step is None else [str(self.step)]))


NOWHERE = Place()

_place: ContextVar[Place] = ContextVar("place", default=NOWHERE)


# The variable's own methods, because these run for every operation; for all other code there is `at`.
here: Callable[[], Place] = _place.get  # the place that is being computed; in a backward pass that of the operation that is differentiated
enter: Callable[[Place], Token[Place]] = _place.set  # be there, until
leave: Callable[[Token[Place]], None] = _place.reset


@contextmanager
def at(*, module: Module | None = None, part: str | None = None, step: int | None = None, packing: Packing | None = None) -> Iterator[None]:
    """Operations of this context run in this module, in this part, at this time step, on rows packed so; what is not given stays."""
    old_module, old_part, old_step, old_packing = _place.get()
    token = _place.set(
        Place(
            old_module if module is None else module,
            old_part if part is None else part,
            old_step if step is None else step,
            old_packing if packing is None else packing,
        )
    )
    try:
        yield
    finally:
        _place.reset(token)

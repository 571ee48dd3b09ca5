"""One file per kind of golden file; importing registers them."""

from tests.parity.cases import (  # noqa: F401
    autoregressive,
    judge,
    losses,
    networks,
    posteriors,
    sampling,
    schedules,
    scores,
    training,
)

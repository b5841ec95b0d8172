"""`SharedState`: what several backplanes of one hub have in common."""

from __future__ import annotations

from typing import NamedTuple

from twisted_beastws.hub.linked_pace import Pace, TroubleLog
from twisted_beastws.hub.linked_publishing import PublishingLoad


class SharedState(NamedTuple):
    """The limits of a hub, and its log."""

    load: PublishingLoad
    pace: Pace
    troubles: TroubleLog

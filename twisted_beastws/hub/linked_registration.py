"""`Registration`: when a hub may acknowledge messages, and when it may vouch for a dataset.

If the server returns with older data, the hubs that are listed there vouch for the data. They must not do so if a hub
that they do not know has acknowledged messages since. Two rules prevent that:

- A new hub acknowledges nothing before a listed hub has confirmed that it knows the new hub's registration; that hub
  would miss the registration in older data. The listed hub itself must be past this point. If no hub confirms the
  registration, the new hub waits until the leases of all others have ended.
- The lease of a hub lasts `GRACE` seconds from its last answered question for the dataset's place. A hub without a
  lease does not vouch for the data of another server process than before: its members are informed of a gap.

Both sides measure the time on their own monotonic clock. The lease begins when the hub asks, and the wait when the
server has answered, so the lease ends first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from twisted_beastws.clock import seconds_of
from twisted_beastws.hub import linked_interfaces as links
from twisted_beastws.hub.backplane import is_id, order_of
from twisted_beastws.hub.linked_answers import Order, Standing, Verified
from twisted_beastws.hub.linked_errors import LinkLost, NotReplicated, Refused
from twisted_beastws.hub.linked_interfaces import LinkCommands
from twisted_beastws.hub.linked_place import KnownPlace

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall, IReactorTime

MARGIN = 1.0
"""Seconds that a new hub waits longer than a lease lasts. Two machines' clocks differ by milliseconds in that time."""

LOOK = 1.0
"""Seconds between two looks at the clock while a hub waits."""

MAX_ROUNDS = 4
"""Questions for the dataset's place in a row; each one confirms what the answer before brought."""


class RegisteredBackplane(Protocol):
    """The `LinkedBackplane`, as its registration sees it."""

    @property
    def reactor(self) -> IReactorTime: ...

    @property
    def is_linked(self) -> bool: ...

    @property
    def link(self) -> LinkCommands: ...

    def learned(self, answer: Verified) -> Verified: ...


class Registration:
    """The registration of this hub in the dataset, and its lease.

    Args:
        backplane: the backplane.
        place: the latest id that the hub knows.
        log: writes a line with the address.
    """

    def __init__(self, backplane: RegisteredBackplane, place: KnownPlace, log: Callable[..., None]) -> None:
        self._backplane = backplane
        self._place = place
        self._log = log
        self._server = ""
        self._trusts = True
        self._leased_until = 0.0
        self._confirmed: Order = (0, 0)
        self._awaits = ""
        self._since = 0.0
        self._pending: list[Deferred[None]] = []
        self._asking = self._ask_again = self._logged = False
        self._looking: IDelayedCall | None = None

    @property
    def established(self) -> bool:
        """Whether the hub may acknowledge messages."""
        return not self._awaits

    @property
    def _seconds(self) -> Callable[[], float]:
        return seconds_of(self._backplane.reactor)

    def when_established(self) -> Deferred[None]:
        """Return a Deferred that fires when the hub may acknowledge messages; it fails when the link is lost."""
        if not self._awaits:
            return succeed(None)
        self._pending.append(Deferred())
        return self._pending[-1]

    async def verify(self, link: LinkCommands) -> Verified:
        """Ask for the dataset's place, vouch for the dataset if it may need that, and renew the lease."""
        sure = True
        known = str(self._place)
        for _ in range(MAX_ROUNDS):
            asked = self._seconds()
            self._confirmed = order_of(known.partition(" ")[0])
            verified = await link.position(known, self._standing())
            sure = sure and verified.sure
            if not self._answered(asked, verified):
                break
            known = f"{verified.place.position} {verified.place.epoch}"
        return verified._replace(sure=sure)

    def _standing(self) -> Standing:
        vouched = f"{int(self._trusts)} {self._server}" if self._server else ""
        waited = self._awaits if self._seconds() - self._since >= links.GRACE + MARGIN else ""
        return Standing(vouched, waited, not self.established)

    def _answered(self, asked: float, verified: Verified) -> bool:
        """Note an answer; return whether the hub has to ask again, with the knowledge from this one."""
        known = self._server
        if verified.server != known:
            self._trusts = not known or self._seconds() < self._leased_until
            self._server = verified.server
        elif not self._trusts:
            # The dataset has another epoch now, if it needed this hub.
            self._trusts = True
        if self._trusts:
            # Whoever registered before this question is known by this answer.
            self._leased_until = asked + links.GRACE
        self._place.note(verified.place.position)
        self.registered(verified.awaits)
        return verified.unconfirmed or known not in ("", verified.server)

    def registered(self, awaits: str) -> None:
        """Note the state of the registration in an answer of the server. awaits: as of `Verified`."""
        if awaits != self._awaits:
            self._awaits, self._since, self._logged = awaits, self._seconds(), False
        if awaits:
            self._look_later()
        elif self._pending:
            self._fire(None)

    def noticed(self, message_id: str) -> None:
        """Another hub was registered, or may acknowledge messages now: confirm its registration."""
        if self._awaits or (is_id(message_id) and order_of(message_id) > self._confirmed):
            self._ask()

    def lost(self) -> None:
        """Note the loss of the link."""
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None
        self._fire(Failure(LinkLost("the connection was lost")))

    def stop(self) -> None:
        """Give up the lease: this hub is not listed from now on."""
        self._leased_until = 0.0

    def _fire(self, result: Failure | None) -> None:
        pending, self._pending = self._pending, []
        for each in pending:
            each.callback(result)

    def _look_later(self) -> None:
        if self._looking is None:
            self._looking = self._backplane.reactor.callLater(LOOK, self._look)

    def _look(self) -> None:
        self._looking = None
        if not self._awaits:
            return
        if not self._logged:
            self._logged = True
            self._log(
                "the backplane {url} lists hubs that do not answer: this hub acknowledges messages in"
                " {seconds:.0f} seconds at the latest",
                seconds=links.GRACE + MARGIN,
            )
        self._look_later()
        if self._standing().waited:
            self._ask()

    def _ask(self) -> None:
        self._ask_again = True
        if not self._asking and self._backplane.is_linked:
            self._asking = True
            Deferred.fromCoroutine(self._ask_in_turn()).addErrback(self._not_asked).addBoth(self._asked)

    async def _ask_in_turn(self) -> None:
        while self._ask_again:
            self._ask_again = False
            self._backplane.learned(await self.verify(self._backplane.link))

    def _not_asked(self, failure: Failure) -> None:
        # The next sign of life asks again.
        failure.trap(Refused, LinkLost, NotReplicated)

    def _asked(self, _: object) -> None:
        self._asking = False

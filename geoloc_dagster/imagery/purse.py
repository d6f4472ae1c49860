"""Paying for requests out of the day's budgets: several at once where there are many, never more than the budget holds."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from geoloc_dagster.imagery.ledger import Ledger

IMAGE_CHARGE = "image"
TILE_CHARGE = "tile"
"""What requests are charged as: a picture, a vector tile."""


@dataclass(frozen=True, slots=True)
class Budget:
    """What may be asked of a service in one day (UTC), all processes of a region together.

    Attributes:
        what: the ledger's word: a charge that requests name, `request`, `byte` or `microdollar`.
        limit: of the day.
        per_charge: what one request of that charge costs of it; `request` counts every one, `byte` what comes back.
        said: it for people, e.g. `25,000 requests for a picture a day`.
    """

    what: str
    limit: int
    per_charge: Mapping[str, int]
    said: str

    def cost(self, charge: str | None) -> int:
        """Of one request."""
        return 1 if self.what == "request" else self.per_charge.get(charge or "", 0)


class Purse:
    """Requests that are paid for already. What is left of them goes back when it is closed; a killed process loses it.

    Args:
        ledger: of the region.
        service: whose budgets.
        budgets: of one day.
        today: UTC.
        at_once: requests that are paid for together.
    """

    def __init__(
        self, ledger: Ledger, service: str, budgets: Sequence[Budget], today: Callable[[], dt.date], at_once: int = 1
    ) -> None:
        self._ledger = ledger
        self._service = service
        self._budgets = tuple(budgets)
        self._today = today
        self._at_once = at_once
        self._paid: dict[str | None, int] = {}
        self._day: dt.date | None = None
        self._bytes = 0
        self._uncounted = 0

    def pay(self, charge: str | None) -> str | None:
        """Pay for one request about to leave; the words of a budget that is spent instead where one is."""
        today = self._today()
        if today != self._day:
            self._paid.clear()  # they were of another day's budget
            self._day = today
        left = self._paid.get(charge, 0)
        if left:
            self._paid[charge] = left - 1
            return None
        self._count_bytes()
        return self._said(self._take(charge, today) or self._bytes_spent(today))

    def pay_without_request(self, charge: str) -> str | None:
        """As `pay`, for something charged that no request leaves for."""
        today = self._today()
        takings = [(budget.what, budget.cost(charge), budget.limit) for budget in self._budgets if budget.what != "request"]
        return self._said(self._ledger.take_all(self._service, today, takings) or self._bytes_spent(today))

    def received(self, count: int) -> None:
        """Count bytes that came."""
        self._bytes += count
        self._uncounted += 1
        if self._uncounted >= self._at_once:
            self._count_bytes()

    def close(self) -> None:
        """Count what is not counted yet, and give back what is paid for and was not sent."""
        self._count_bytes()
        if self._day is not None:
            for charge, left in self._paid.items():
                back = [(budget.what, budget.cost(charge) * left) for budget in self._budgets]
                self._ledger.give_back(self._service, self._day, back)
        self._paid.clear()

    def _said(self, spent: str | None) -> str | None:
        return None if spent is None else next(budget.said for budget in self._budgets if budget.what == spent)

    def _take(self, charge: str | None, today: dt.date) -> str | None:
        """Take for as many as there may be; near the end of a budget for fewer, down to one."""
        count = self._at_once
        while True:
            takings = [(budget.what, budget.cost(charge) * count, budget.limit) for budget in self._budgets]
            spent = self._ledger.take_all(self._service, today, takings)
            if spent is None:
                self._paid[charge] = count - 1
                return None
            if count == 1:
                return spent
            count //= 2

    def _count_bytes(self) -> None:
        if self._bytes:
            self._ledger.add(self._service, self._today(), "byte", self._bytes)
        self._bytes = self._uncounted = 0

    def _bytes_spent(self, today: dt.date) -> str | None:
        """`byte` where their budget is spent; they are counted when they have come."""
        limit = next((budget.limit for budget in self._budgets if budget.what == "byte"), None)
        if limit is None:
            return None
        return "byte" if self._ledger.used(self._service, today, "byte") >= limit else None

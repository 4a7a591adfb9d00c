"""What a sweep may send and spend, held before every request."""

from dataclasses import dataclass

from idealized_runtime.records.requests import reported_tokens


class BudgetSpentError(Exception):
    """The next request would exceed a budget; it was not sent."""


@dataclass(frozen=True)
class Prices:
    """US dollars for a million tokens."""

    usd_per_million_prompt_tokens: float = 0.0
    usd_per_million_output_tokens: float = 0.0

    def cost_usd(self, num_prompt_tokens: int, num_output_tokens: int) -> float:
        """US dollars of one request."""
        prompt_usd = num_prompt_tokens * self.usd_per_million_prompt_tokens
        return (prompt_usd + num_output_tokens * self.usd_per_million_output_tokens) / 1e6


class Budget:
    """Counts requests and dollars, and refuses the request that would be too many or too dear.

    A request counts from the moment it is reserved, at the full price of what it asks for; what the server then
    reports may lower it.

    Parameters
    ----------
    max_requests : int, optional
    max_cost_usd : float, optional
    prices : Prices
    """

    def __init__(self, *, max_requests: int | None = None, max_cost_usd: float | None = None, prices=Prices()):
        self.max_requests = max_requests
        self.max_cost_usd = max_cost_usd
        self.prices = prices
        self.num_requests = 0
        self.cost_usd = 0.0

    def count_earlier(self, trials, lost):
        """Add what a log already holds: its trials, and at their full price the requests that killed runs lost."""
        self.num_requests += sum(trial.get("num_requests", 1) for trial in trials) + len(lost)
        self.cost_usd += sum(record.get("cost_usd") or 0.0 for record in (*trials, *lost))

    def reserve(self, num_prompt_tokens: int, num_output_tokens: int) -> float:
        """Count one request before it is sent; its price in US dollars.

        Raises
        ------
        BudgetSpentError
            It would exceed a budget; nothing is counted.
        """
        cost_usd = self.prices.cost_usd(num_prompt_tokens, num_output_tokens)
        if self.max_requests is not None and self.num_requests + 1 > self.max_requests:
            raise BudgetSpentError(f"--max-requests {self.max_requests}: {self.num_requests} were sent")
        if self.max_cost_usd is not None and self.cost_usd + cost_usd > self.max_cost_usd * (1 + 1e-9):
            raise BudgetSpentError(
                f"--max-cost {self.max_cost_usd:g}: {self.cost_usd:.6g} USD are spent, the next request may cost "
                f"{cost_usd:.6g}"
            )
        self.num_requests += 1
        self.cost_usd += cost_usd
        return cost_usd

    def settle(self, reserved_usd: float, answer) -> float:
        """Replace a reserved price by what the answer cost, which is returned, in US dollars."""
        cost_usd = reserved_usd if answer.is_billed else 0.0
        counts = [reported_tokens(answer.usage, name) for name in ("prompt_tokens", "completion_tokens")]
        if None not in counts:
            cost_usd = self.prices.cost_usd(*counts)
        self.cost_usd += cost_usd - reserved_usd
        return cost_usd

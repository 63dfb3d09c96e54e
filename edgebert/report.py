"""What the gate found: figures, the tolerance they are held to, and a verdict for each question it asked."""

import math
from dataclasses import asdict, dataclass
from typing import Any

from edgebert.results import Table


@dataclass(frozen=True, slots=True)
class Tolerance:
    """What a target and recipe is held to.

    Attributes:
        min_sqnr_db: signal to error, 10 log10(sum of squares of torch's answer / of the difference), for each output.
        min_label_agreement: share of equal labels among those that are decided, see `ErrorStats`.
        reason: where the figures come from.
    """

    min_sqnr_db: float
    min_label_agreement: float
    reason: str


@dataclass(frozen=True, slots=True)
class ErrorStats:
    """How far an output is from torch's, over the tokens that are no padding.

    Attributes:
        max_abs: largest absolute difference.
        mean_abs: mean absolute difference.
        cosine: cosine of the two outputs as one vector each.
        sqnr_db: signal to error in decibel; infinite when equal.
        label_agreement: share of equal labels (largest logit); None for outputs without labels.
        decided_agreement: the same among labels that torch's lead over the second decides: a lead smaller than twice
            the error which the table allows says nothing about the file.
        labels: how many labels were compared.
        decided: how many of them are decided.
    """

    max_abs: float
    mean_abs: float
    cosine: float
    sqnr_db: float
    label_agreement: float | None
    decided_agreement: float | None
    labels: int
    decided: int

    @property
    def agreeing(self) -> int:
        """How many of the decided labels are equal."""
        return round(self.decided * (self.decided_agreement or 0.0))

    def within(self, tolerance: Tolerance) -> bool:
        """Whether these figures keep to a row of the table."""
        others = round(self.decided * (1 - tolerance.min_label_agreement))  # to the nearest label
        return self.sqnr_db >= tolerance.min_sqnr_db and self.decided - self.agreeing <= others


@dataclass(frozen=True, slots=True)
class Check:
    """One question the gate asked, and what came out."""

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Report(Table):
    """Everything the gate saw.

    Attributes:
        outputs: how far each output is from torch's.
        checks: every question that was asked.
        tolerance: what the outputs were held to.
    """

    outputs: dict[str, ErrorStats]
    checks: tuple[Check, ...]
    tolerance: Tolerance

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)

    def __repr__(self) -> str:
        told = ", ".join(f"{name} {stats.sqnr_db:.1f} dB" for name, stats in self.outputs.items())
        failed = ", ".join(check.name for check in self.checks if not check.passed)
        return f"Report({told}, {f'FAILED: {failed}' if failed else f'all {len(self.checks)} checks passed'})"

    def flat(self) -> list[dict[str, Any]]:
        """A row for each output."""
        return [
            {"output": name, "passed": stats.within(self.tolerance), "least_sqnr_db": self.tolerance.min_sqnr_db}
            | asdict(stats)
            for name, stats in self.outputs.items()
        ]

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values; an infinite ratio (equal to the last bit) becomes null."""
        outputs = {name: asdict(stats) for name, stats in self.outputs.items()}
        for stats in outputs.values():
            stats["sqnr_db"] = stats["sqnr_db"] if math.isfinite(stats["sqnr_db"]) else None
        checks = [asdict(check) for check in self.checks]
        return {"passed": self.passed, "tolerance": asdict(self.tolerance), "outputs": outputs, "checks": checks}

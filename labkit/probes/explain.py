"""A report as a card in plain words: symptom, cause, repair, how to prove it, where to learn."""

import re
from dataclasses import dataclass

from labkit.probes.report import Report
from labkit.probes.verdict import Verdict


@dataclass(frozen=True, slots=True)
class Card:
    """Five short answers; ``str(card)`` is five lines."""

    symptom: str
    cause: str
    repair: str
    proof: str
    notebook: str

    def __str__(self) -> str:
        rows = zip(("symptom", "cause", "repair", "proof", "notebook"), self.parts, strict=True)
        return "\n".join(f"{name:8} {text}" for name, text in rows)

    @property
    def parts(self) -> tuple[str, str, str, str, str]:
        return self.symptom, self.cause, self.repair, self.proof, self.notebook


SYMPTOMS = {
    Verdict.HEALTHY: "none: every value is finite and every gradient is alive",
    Verdict.WRONG: "every number is finite, and one of them is wrong",
    Verdict.FROZEN: "gradients arrive, and the parameters stay where they are",
    Verdict.VANISHING: "some parameters learn millions of times more slowly than others",
    Verdict.EXPLODING: "numbers grow from step to step and will overflow",
    Verdict.DEAD: "a gradient is exactly zero, so its parameters cannot move",
    Verdict.SEVERED: "the loss can fall, yet some parameters never get a gradient",
    Verdict.INF: "an infinity reached the loss, a gradient or a parameter",
    Verdict.NAN: "a NaN reached the loss, a gradient or a parameter",
}

# op -> (what to do, notebook); the first pattern that fits the culprit's op is taken
BIRTHS = (
    (r"exp2?$|expm1|cosh|sinh", "keep the exponent in range before exp: work with its logarithm "
     "(logsumexp, softplus, log_softmax), or cap it straight-through so that the gradient "
     "survives", "exploding_logvar"),
    (r"log|xlogy|entr", "do not take the logarithm of what may be 0 or negative: use the fused "
     "form (log_softmax, logsigmoid, log1p), or make the argument positive first",
     "log_of_almost_nothing"),
    (r"^(std|var)", "take at least two entries, or correction=0: of one entry the spread is 0/0",
     "risky_operations"),
    (r"sqrt|norm|cdist|std|var|rsqrt", "keep the root away from 0: torch.linalg.vector_norm or "
     "cdist, or replace the zero before the root and choose it away afterwards",
     "distance_at_zero"),
    (r"acos|asin|atanh|acosh", "stay inside the open interval, or use atan2, whose gradient is "
     "finite", "risky_operations"),
    (r"div|reciprocal|rsqrt", "make the divisor positive before the division; a guard after it "
     "comes too late", "risky_operations"),
    (r"softmax|logsumexp|attention", "leave at least one entry of each row unmasked, or choose "
     "the empty rows away before the softmax", "masked_but_not_safe"),
    (r"pow", "give pow a base away from 0 (fractional exponents) and away from overflow",
     "risky_operations"),
    (r"lgamma|digamma", "keep the argument positive, and its differences in float64",
     "vanishing_dispersion"),
    (r"svd|eig", "use svdvals or matrix_norm: vectors of equal singular values have no gradient",
     "runaway_operator"),
    (r"mm|linear|conv|matmul|addm", "scale the inputs or weights down, or compute this product "
     "in float32", "half_precision"),
    (r"empty", "initialise the memory: torch.zeros, or fill it before it is read",
     "bad_initialisation"),
    (r"nll|cross_entropy", "keep at least one target that counts, or skip a batch without any",
     "masked_but_not_safe"),
    (r"add.?cdiv|addcmul|step|foreach", "give the optimizer room: a larger eps in half "
     "precision, a smaller step, clipping before it", "poisoned_state"),
)  # fmt: skip
ELSE = ("keep this op's input inside the range where it is finite", "risky_operations")

QUIET = {
    Verdict.SEVERED: ("keep the value in the graph up to the loss", "detach"),
    Verdict.DEAD: ("let the gradient through where the value is capped: a straight-through or a "
                   "smooth form instead of the hard one", "dead_clamp"),
    Verdict.VANISHING: ("shorten the way or keep its gain near one: residual links, "
                        "normalisation, another initialisation", "bad_initialisation"),
    Verdict.EXPLODING: ("hold the gain at or below one (spectral norm, smaller steps), and clip "
                        "the gradient's norm until then", "runaway_operator"),
    Verdict.FROZEN: ("hand the parameter to the optimizer, or let the update be larger than its "
                     "rounding (float32 master weights)", "accumulation"),
    Verdict.WRONG: ("rewrite the difference of two large numbers, or compute it in float64",
                    "distances_that_cancel"),
}  # fmt: skip

DEADS = (
    (r"dropout", "give it a share below 1: p is what is dropped, not what is kept", "dead_clamp"),
    (r"softmax", "keep its scores a few units apart (scale by 1/sqrt(d)), and give it more than "
     "one entry: over one entry it is always 1", "dead_clamp"),
)  # fmt: skip

CUTS = (
    (r"no_grad|requires_grad", "run it with gradients on; freeze by the optimizer's list "
     "instead", "no_grad"),
    (r"item|numpy|tolist|tensor|argmax|gt|ge|lt|le|eq|one_hot", "stay in tensors and in "
     "differentiable ops: torch.stack for a list, softmax for argmax", "item"),
    (r"zero", "call zero_grad before backward, not between backward and step", "reading_gradients"),
    (r"copy|mul_|add_|fill|_$", "write to a new tensor: backward needs the old values", "detach"),
)  # fmt: skip


def explain(report: Report) -> Card:
    """The card of one report.

    Args:
        report: what `trace` returned.

    Returns:
        A `Card`; of a healthy report it says that there is nothing to do.
    """
    symptom = SYMPTOMS.get(report.verdict, str(report.verdict))
    if report.culprit is None:
        return Card(
            symptom, "nothing to blame", "nothing to do", "trace a later step", "start_here"
        )
    repair, notebook = _repair(report)
    return Card(symptom, _cause(report), repair, _proof(report), notebook)


def _cause(report: Report) -> str:
    culprit = report.culprit
    where = f" at {culprit.place}" if culprit.file else ""
    line = f": {culprit.source}" if culprit.source else ""
    what = culprit.name or culprit.op
    if culprit.phase in ("input", "parameter"):
        return f"{what} was bad before any op ran: {culprit.remark}"
    remark = f" ({culprit.remark})" if culprit.remark else ""
    return f"{what}{remark} in the {culprit.phase} phase{where}{line}"


def _repair(report: Report) -> tuple[str, str]:
    culprit = report.culprit
    op = re.sub(r"Backward\d*$", "", culprit.op).lower()
    if report.verdict in (Verdict.NAN, Verdict.INF):
        if culprit.phase == "input":
            return "look at the data where it is loaded; drop or impute what is not finite", (
                "crash_and_recovery"
            )
        if culprit.phase == "parameter":
            return (
                "go back to the last good parameters and optimizer state, and trace from there",
                ("crash_and_recovery"),
            )
        return _first(BIRTHS, op) or ELSE
    if report.verdict is Verdict.SEVERED:
        return _first(CUTS, op) or QUIET[Verdict.SEVERED]
    if report.verdict is Verdict.DEAD:
        return _first(DEADS, op) or QUIET[Verdict.DEAD]
    return QUIET.get(report.verdict, ELSE)


def _first(table, op: str) -> tuple[str, str] | None:
    return next(((do, where) for pattern, do, where in table if re.search(pattern, op)), None)


def _proof(report: Report) -> str:
    culprit = report.culprit
    names = [fate.name for fate in report.harmed][:3]
    who = f" and {', '.join(names)} {'is' if len(names) == 1 else 'are'} ok" if names else ""
    where = f"the same step through {culprit.place}" if culprit.file else "the same step"
    return f"trace {where} again: the verdict is healthy{who}"

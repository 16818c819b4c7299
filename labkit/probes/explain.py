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
    Verdict.UNTRAINED: "every value is finite, and no parameter was trained",
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
     "survives", "22_exploding_logvar"),
    (r"logdet", "take torch.linalg.slogdet and look at its sign, or build the matrix so that its "
     "determinant is positive: a Cholesky factor, or exp on the diagonal", "20_risky_operations"),
    (r"log|xlogy|entr", "do not take the logarithm of what may be 0 or negative: use the fused "
     "form (log_softmax, logsigmoid, log1p), or make the argument positive first",
     "25_log_of_almost_nothing"),
    (r"^(std|var)", "take at least two entries, or correction=0: of one entry the spread is 0/0",
     "20_risky_operations"),
    (r"weight_norm", "start every row of the weight away from 0: a row of zeros has no direction",
     "27_distance_at_zero"),
    (r"sqrt|norm|cdist|std|var|rsqrt", "keep the root away from 0: torch.linalg.vector_norm or "
     "cdist, or replace the zero before the root and choose it away afterwards",
     "27_distance_at_zero"),
    (r"acos|asin|atanh|acosh", "stay inside the open interval, or use atan2, whose gradient is "
     "finite", "20_risky_operations"),
    (r"div|reciprocal|rsqrt", "make the divisor positive before the division; a guard after it "
     "comes too late", "20_risky_operations"),
    (r"softmax|logsumexp|attention", "leave at least one entry of each row unmasked, or choose "
     "the empty rows away before the softmax", "21_masked_but_not_safe"),
    (r"pow", "give pow a positive base where the exponent is not a whole number, away from 0 "
     "and from overflow",
     "20_risky_operations"),
    (r"lgamma|digamma", "keep the argument positive, and its differences in float64",
     "24_vanishing_dispersion"),
    (r"svd|eig", "use svdvals or matrix_norm: vectors of equal singular values have no gradient",
     "26_runaway_operator"),
    (r"mm|linear|conv|matmul|addm", "scale the inputs or weights down, or compute this product "
     "in float32", "34_half_precision"),
    (r"empty", "initialise the memory: torch.zeros, or fill it before it is read",
     "14_bad_initialisation"),
    (r"nll|cross_entropy", "keep at least one target that counts, or skip a batch without any",
     "21_masked_but_not_safe"),
    (r"accumulategrad", "empty the gradients before the backward: what is bad in .grad stays bad, "
     "whatever is added to it", "10_accumulation"),
    (r"add.?cdiv|addcmul|step|foreach", "give the optimizer room: a larger eps in half "
     "precision, a smaller step, clipping before it", "33_poisoned_state"),
)  # fmt: skip
ELSE = ("keep this op's input inside the range where it is finite", "20_risky_operations")

FORWARD = (
    "run the forward pass inside the traced step: then its lines are known",
    "45_your_own_model",
)

RATE = ("lower the learning rate: each step overshoots by more than the one before; warm it up, "
        "and clip the gradient's norm until then", "32_clip_or_detect")  # fmt: skip

QUIET = {
    Verdict.SEVERED: ("keep the value in the graph up to the loss", "12_detach"),
    Verdict.DEAD: ("let the gradient through where the value is capped: a straight-through or a "
                   "smooth form instead of the hard one", "23_dead_clamp"),
    Verdict.VANISHING: ("shorten the way or keep its gain near one: residual links, "
                        "normalisation, another initialisation", "14_bad_initialisation"),
    Verdict.EXPLODING: ("hold the gain at or below one (spectral norm, smaller steps), and clip "
                        "the gradient's norm until then", "26_runaway_operator"),
    Verdict.FROZEN: ("hand the parameter to the optimizer, or let the update be larger than its "
                     "rounding (float32 master weights)", "10_accumulation"),
    Verdict.WRONG: ("rewrite the difference of two large numbers, or compute it in float64",
                    "28_distances_that_cancel"),
}  # fmt: skip

IDLES = (
    (r"no_grad", "run it with gradients on; an evaluation that is meant to be one says so with "
     "model.eval()", "11_no_grad"),
    (r"requires_grad", "switch it on again, requires_grad_(True), for what should learn",
     "11_no_grad"),
    (r"model", "call this model in the step, not a copy or an average of it; or name the one that "
     "the step runs, or leave model= out", "00_start_here"),
    (r"", "return the loss, or run loss.backward() in the step", "00_start_here"),
)  # fmt: skip

DEADS = (
    (r"dropout", "give it a share below 1: p is what is dropped, not what is kept",
     "23_dead_clamp"),
    (r"softmax", "keep its scores a few units apart (scale by 1/sqrt(d)), and give it more than "
     "one entry: over one entry it is always 1", "23_dead_clamp"),
)  # fmt: skip

CUTS = (
    (r"no_grad|requires_grad", "run it with gradients on; freeze by the optimizer's list "
     "instead", "11_no_grad"),
    (r"^grad$", "take it with create_graph=True, so that the loss leads through it",
     "12_detach"),
    (r"item|numpy|tolist|tensor|argmax|^(gt|ge|lt|le|eq|ne)$|one_hot", "stay in tensors and in "
     "differentiable ops: torch.stack for a list, softmax for argmax", "13_item"),
    (r"zero", "call zero_grad before backward, not between backward and step",
     "15_reading_gradients"),
    (r"copy|mul_|add_|fill|_$", "write to a new tensor: backward needs the old values",
     "12_detach"),
)  # fmt: skip

CUT_WORDS = {  # by the beginning of the remark
    "what leaves": "hand to apply every tensor that should learn, and call no floating result of "
    "it not differentiable; checkpoint with use_reentrant=False",
    "torch.autograd.grad": "write what torch.autograd.grad returns into each parameter's .grad, or "
    "call backward()",
    "it enters no loss": "add it to the loss that runs backward, or take its parameters out of the "
    "optimizer",
}
RETURNS = "return a gradient for every input of forward that should learn, in its order"


def explain(report: Report) -> Card:
    """The card of one report.

    Args:
        report: what `trace` returned.

    Returns:
        A `Card`; of a healthy report it says that there is nothing to do.
    """
    if report.culprit is None:
        symptom = f"none: every value is finite; {report.trained}"
        return Card(
            symptom, _excuses(report), "nothing to do", "trace a later step", "00_start_here"
        )
    symptom = SYMPTOMS.get(report.verdict, str(report.verdict))
    repair, notebook = _repair(report)
    return Card(symptom, _cause(report), repair, _proof(report), notebook)


def _excuses(report: Report) -> str:
    """Nothing to blame, and why some parameters may be without a gradient."""
    excused = [fate for fate in report.parameters if fate.word != "ok"]
    told = [f"{fate.name}: {fate.excused}" for fate in excused[:2]]
    more = [f"{len(excused) - 2} more"] if len(excused) > 2 else []
    return "; ".join(["nothing to blame", *told, *more])


def _cause(report: Report) -> str:
    culprit = report.culprit
    before = ", in a graph from before the trace" if _before(report) else ""
    where = f" at {culprit.place}" if culprit.file else before
    line = f": {culprit.source}" if culprit.source else ""
    what = culprit.name or culprit.op
    if report.verdict is Verdict.UNTRAINED:
        return f"{what} ({culprit.remark}){where}{line}"
    if culprit.phase in ("input", "parameter"):
        return f"{what} was bad before any op ran: {culprit.remark}"
    remark = f" ({culprit.remark})" if culprit.remark else ""
    return f"{what}{remark} in the {culprit.phase} phase{where}{line}"


def _before(report: Report) -> bool:
    """Whether the culprit belongs to a graph that was made before the trace."""
    op = report.ops[report.culprit.position] if report.culprit.position is not None else None
    forward = report.ops[op.forward] if op is not None and op.forward is not None else op
    return forward is not None and forward.kind == "graph"


def _repair(report: Report) -> tuple[str, str]:
    culprit = report.culprit
    if "learning rate" in culprit.remark and "grows" in culprit.remark:
        return RATE
    op = re.sub(r"Backward\d*$", "", culprit.op).lower()
    if report.verdict in (Verdict.NAN, Verdict.INF):
        if culprit.phase == "input" and _before(report):
            return FORWARD
        if culprit.phase == "input":
            return "look at the data where it is loaded; drop or impute what is not finite", (
                "42_crash_and_recovery"
            )
        if culprit.phase == "parameter":
            return (
                "go back to the last good parameters and optimizer state, and trace from there",
                ("42_crash_and_recovery"),
            )
        return _first(BIRTHS, op) or ELSE
    if report.verdict is Verdict.SEVERED:
        return _by_remark(culprit) or _first(CUTS, op) or QUIET[Verdict.SEVERED]
    if report.verdict is Verdict.UNTRAINED:
        return _first(IDLES, op)
    if report.verdict is Verdict.DEAD:
        return _first(DEADS, op) or QUIET[Verdict.DEAD]
    return QUIET.get(report.verdict, ELSE)


def _by_remark(culprit) -> tuple[str, str] | None:
    """Cuts that are known by what is told of them, not by their op."""
    told = (repair for start, repair in CUT_WORDS.items() if culprit.remark.startswith(start))
    repair = next(told, RETURNS if culprit.phase == "backward" else None)
    return repair and (repair, "12_detach")


def _first(table, op: str) -> tuple[str, str] | None:
    return next(((do, where) for pattern, do, where in table if re.search(pattern, op)), None)


def _proof(report: Report) -> str:
    culprit = report.culprit
    names = [fate.name for fate in report.harmed][:3]
    who = f" and {', '.join(names)} {'is' if len(names) == 1 else 'are'} ok" if names else ""
    where = f"the same step through {culprit.place}" if culprit.file else "the same step"
    return f"trace {where} again: the verdict is healthy{who}"

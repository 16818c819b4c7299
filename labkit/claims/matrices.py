"""Matrix products: NaN and Inf from finite entries (guide, 2)."""

import torch

from labkit.claims.entry import Ruling, claim, protection, truth
from labkit.claims.subjects import edge, name, non_finite

INF = float("inf")


@claim(
    "G35",
    chinese="A或B包含NaN",
    english="bmm gives NaN if A or B contains NaN.",
    where="2 matrix, bmm, NaN",
    verdict="holds with a condition",
)
def a_product_is_nan_if_an_input_is(value: float = 1e30, entry: float = INF) -> Ruling:
    """One NaN times zeros; one Inf times the identity; finite entries of a large value."""
    A = torch.ones(1, 3, 3)
    A[0, 0, 0] = torch.nan
    forward = int((A @ torch.zeros(1, 3, 3)).isnan().sum())
    A[0, 0, 0] = entry
    from_inf = int((A @ torch.eye(3)).isnan().sum())
    row, column = torch.tensor([[[value, value]]]), torch.tensor([[[value], [-value]]])
    born = float(row @ column)
    only = from_inf == 0 and born == born
    return truth(forward > 0 and only, sometimes=forward > 0), (
        f"One NaN times zeros makes {forward} of 9 entries NaN; but one {entry:g} times the "
        "identity "
        f"makes {from_inf}, and ({value:g}, {value:g}) times ({value:g}, {-value:g}) is {born:g}."
    )


@claim(
    "G36",
    chinese="元素过大累积",
    english="bmm gives Inf where large entries add up.",
    where="2 matrix, bmm, Inf",
    verdict="holds",
)
def a_product_is_inf_where_large_entries_add_up(terms: int = 32) -> Ruling:
    """A dot product of equal entries a: the first a at which it is Inf."""

    def dot(a: torch.Tensor) -> torch.Tensor:
        row = a.expand(1, 1, terms)
        return row @ row.mT

    first = {name(d): edge(non_finite(dot), 1.0, high, d)[1] for d, high in LARGE.items()}
    alone = {name(d): edge(non_finite(lambda a: a * a), 1.0, h, d)[1] for d, h in LARGE.items()}
    return truth(all(first[d] < alone[d] for d in first)), (
        f"A product of {terms} terms a*a is Inf from a = "
        + ", ".join(f"{a:.3g} in {d}" for d, a in first.items())
        + ", a single one from "
        + ", ".join(f"{a:.3g}" for a in alone.values())
        + "."
    )


LARGE = {torch.float32: 1e38, torch.float16: 60000.0}


@claim(
    "G37",
    chinese="输入验证",
    english="Validating its inputs protects bmm.",
    where="2 matrix, bmm, guard",
    verdict="incomplete guard",
)
def validating_the_inputs_protects_a_product(value: float = 1e20) -> Ruling:
    """Inputs that are finite, and the product's entries."""
    A = torch.full((1, 2, 2), value)
    bad = A.clone()
    bad[0, 0, 0] = torch.nan
    out = A @ A
    caught = not bool(bad.isfinite().all())
    leaks = bool(A.isfinite().all()) and not bool(out.isfinite().all())
    return protection(caught, leaks), (
        f"It finds a NaN in A; but with every entry of A and B {value:g}, finite, the product is "
        f"{float(out[0, 0, 0]):g}."
    )

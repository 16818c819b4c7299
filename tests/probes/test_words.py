"""What a card says of the op that is to blame: the user's name for it, and the entries' fault."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from labkit import trace


def leaf(*values):
    return torch.tensor(values, requires_grad=True)


PROGRAMS = {
    "a negative determinant": (
        lambda: -torch.logdet(torch.diag(leaf(-1.0, 1.0, 2.0))),
        ("nan", "logdet", "the determinant is negative", "slogdet"),
    ),
    "as a method": (
        lambda: torch.diag(leaf(-1.0, 1.0)).logdet(),
        ("nan", "logdet", "the determinant is negative", "slogdet"),
    ),
    "negative bases": (
        lambda: (leaf(-1.0, -2.0, 0.5, 0.0) ** 0.7).sum(),
        (
            "nan",
            "pow",
            "2 of 4 bases were negative, with an exponent that is not whole",
            "positive",
        ),
    ),
    "zero bases": (
        lambda: (leaf(0.0, 2.0, 0.5) ** -0.5).sum(),
        ("inf", "pow", "1 of 3 bases were zero", "positive base"),
    ),
    "a base that overflows": (
        lambda: (leaf(-1e20, 2.0) ** 3).sum(),
        ("inf", "pow", "input up to 1e+20", "overflow"),
    ),
    "an exponent that overflows": (
        lambda: (2.0 ** leaf(1.0, 200.0)).sum(),
        ("inf", "pow", "exponent up to 200", "overflow"),
    ),
    "no target that counts": (
        lambda: F.cross_entropy(leaf([1.0, 2.0]), torch.tensor([-100])),
        ("nan", "nll_loss_forward", "no target counts: 0 divided by 0", "one target"),
    ),
}


@pytest.mark.parametrize(("step", "truth"), PROGRAMS.values(), ids=PROGRAMS)
def test_the_remark_names_the_fault(step, truth):
    report = trace(step)
    assert (report.verdict, report.culprit.op, report.culprit.remark) == truth[:3]
    assert truth[3] in report.explain().repair


def test_a_weight_without_a_direction():
    layer = nn.Linear(4, 3)
    nn.init.zeros_(layer.weight[:2].detach())
    layer = nn.utils.parametrizations.weight_norm(layer)
    report = trace(lambda: layer(torch.ones(2, 4)).sum(), layer)
    assert (report.verdict, report.culprit.remark) == ("nan", "2 of 3 norms were zero")
    assert "no direction" in report.explain().repair


def test_a_nan_that_the_user_wrote_keeps_its_name():
    w = torch.ones(3, requires_grad=True)
    report = trace(lambda: (w * torch.full((3,), torch.nan)).sum())
    assert report.culprit.op == "full"


def test_every_notebook_on_a_card_is_there():
    import re
    from pathlib import Path

    from labkit.probes import explain

    books = {path.stem for path in Path(__file__).parents[2].glob("notebooks/text/*.py")}
    told = set(re.findall(r'"(\d\d_\w+)"', Path(explain.__file__).read_text(encoding="utf-8")))
    assert len(told) > 10
    assert told <= books

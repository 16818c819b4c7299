"""Change what a claim hinges on, and its verdict changes with it: none is a constant."""

import math
from contextlib import nullcontext
from functools import partial

import pytest
import torch

from labkit.cells.data import validate_counts
from labkit.claims.entry import BOOK
from labkit.claims.inputs import strict
from labkit.claims.likelihoods import by_expm1, log_score
from labkit.claims.masks import double_where
from labkit.claims.ranks import agreed_skip
from labkit.models.energy import energy_distance
from labkit.models.guards import OFF
from labkit.models.spectral import spectral_norm

F64, F16 = torch.float64, torch.float16


def cut(total, term):
    """An accumulation that really forgets."""
    return total.detach() + term


def norm_error(parameters):
    """What the guide's order of clipping should have been."""
    torch.nn.utils.clip_grad_norm_(parameters, 1.0, error_if_nonfinite=True)


def not_finite(value):
    """The check that the guide should have made."""
    return ~value.isfinite().all() | (value.abs() > 1e10).any()


CHANGED = {
    "G01": ({"join": cut}, "holds"),
    "G02": ({"join": cut}, "holds"),
    "G03": ({"total": lambda terms: sum(t.sum() for t in terms), "dtype": F64}, "holds"),
    "G04": ({"join": cut}, "holds"),
    "G05": ({"learns_behind": False}, "holds"),
    "G06": ({"block": nullcontext}, "holds"),
    "G07": ({"mode": "eval"}, "holds"),
    "G08": ({"detach": torch.Tensor.clone}, "false"),
    "G09": ({"edit": torch.Tensor.max}, "holds"),
    "G10": ({"weight_decay": lambda w: torch.zeros(())}, "holds"),
    "G11": ({"log": lambda loss: loss}, "false"),
    "G12": ({"bad": math.nan}, "holds"),
    "G13": ({"small": 0.0}, "false"),
    "G14": ({"in_optimizer": True}, "holds"),
    "G15": ({"retain": True}, "holds"),
    "G16": ({"tool": lambda loss: None}, "holds"),
    "G17": ({"x": 60.0}, "holds"),
    "G18": ({"limit": 50.0}, "false"),
    "G19": ({"guard": lambda x: x}, "false"),
    "G20": ({"log": lambda x: x.log() - x.log()}, "holds"),
    "G21": ({"points": (1.0, 2.0)}, "holds"),
    "G22": ({"eps": 0.0}, "false"),
    "G23": ({"point": 1.0}, "holds"),
    "G24": ({"logits": (2.0, 1.0, 0.0)}, "holds"),
    "G25": ({"layers": 1}, "false"),
    "G26": ({"root": lambda x: (x.clamp(min=0) + 1e-8).sqrt()}, "holds"),
    "G27": ({"numerators": (0.0,)}, "holds"),
    "G29": ({"eps": 0.0}, "false"),
    "G30": ({"lgamma": lambda x: x.lgamma() + 0 * x.sqrt()}, "holds"),
    "G31": ({"near": (0.0,)}, "holds"),
    "G34": ({"bases": (0.5, 1.0)}, "false"),
    "G35": ({"value": 1.0, "entry": 2.0}, "holds"),
    "G36": ({"terms": 1}, "false"),
    "G37": ({"value": 1.0}, "holds"),
    "G38": ({"others": dict}, "holds"),
    "G39": ({"logvar": 22.0, "dtype": F16}, "holds"),
    "G40": ({"logvar": 10.0}, "false"),
    "G43": ({"logvar": 178.5}, "holds with a condition"),
    "G45": ({"r": -200.5}, "holds"),
    "G46": ({"bias": math.nan}, "holds"),
    "G47": ({"eps": 1e-6}, "false"),
    "G49": ({"logvar": 178.0, "guards": OFF}, "false"),
    "G50": ({"start": 95.0, "guards": OFF}, "false"),
    "G51": ({"eps": 0.0}, "false"),
    "G52": ({"dtype": F64}, "holds"),
    "G53": ({"eps": 1e-6, "log_mu": 0.0}, "holds"),
    "G55": ({"fraction": 0.0}, "holds"),
    "G57": ({"weight": 0.0}, "false"),
    "G58": ({"norm": 1.0}, "holds"),
    "G59": ({"normalise": lambda v: v}, "false"),
    "G60": ({"recompute": True}, "holds"),
    "G61": ({"check": not_finite}, "holds"),
    "G62": ({"eps": 1e-4}, "holds"),
    "G63": ({"distance": energy_distance}, "holds"),
    "G64": ({"limit": 5.0}, "false"),
    "G65": ({"reach": 10.0}, "false"),
    "G66": ({"mu": 1.0}, "holds"),
    "G68": ({"eps": 0.0}, "holds"),
    "G69": ({"a": 1.0}, "false"),
    "G70": ({"a": 0.0, "b": -10.0}, "holds"),
    "G71": ({"bad": 1e20}, "holds"),
    "G72": ({"code": norm_error}, "holds"),
    "G75": ({"told": lambda t: "well"}, "false"),
    "G78": ({"verify": True}, "holds"),
    "G79": ({"kept": ("model", "optimizer", "noise")}, "holds"),
    "G80": ({"check_first": True}, "holds"),
    "G81": ({"passes": strict}, "holds"),
    "G82": ({"check": validate_counts}, "holds"),
    "G83": ({"backward_first": True}, "holds"),
    "G84": ({"check": not_finite}, "holds"),
    "G85": ({"everything": True}, "holds"),
    "G87": ({"bad_batch": -1}, "holds"),
    "G88": ({"created": "after"}, "false"),
    "G91": ({"entry": 1.0}, "false"),
    "G92": ({"x": 5.0}, "holds"),
    "G93": ({"dtype": torch.float32}, "false"),
    "D01": ({"masked": double_where}, "holds"),
    "D02": ({"distance": partial(energy_distance, biased=True)}, "holds"),
    "D03": ({"dtype": F64}, "holds"),
    "D04": ({"dtype": F64}, "holds"),
    "D05": ({"score": log_score}, "holds"),
    "D06": ({"eps": 1e-4}, "holds"),
    "D07": ({"gradient": 1e10}, "holds"),
    "D08": ({"spike": 1.0}, "holds"),
    "D09": ({"with_state": True}, "holds"),
    "D10": ({"layer": "Identity"}, "holds"),
    "D11": ({"limit": 10}, "holds"),
    "D12": ({"guard": agreed_skip}, "holds"),
    "D13": ({"look_at_each": True}, "holds"),
    "D14": ({"off_diagonal": 0.0, "beside": 0.0}, "holds"),
    "D16": ({"functions": {"exp": (torch.exp, 1.0)}}, "holds"),
    "D17": ({"functions": {"exp": (torch.exp, 1.0)}}, "holds"),
    "D18": ({"rollback": True}, "holds"),
    "D19": ({"dtype": torch.float32}, "holds"),
    "D20": ({"dtype": F64}, "holds"),
    "D21": ({"norm": spectral_norm}, "holds"),
    "D22": ({"biased": True}, "holds"),
    "D23": ({"kl": by_expm1}, "holds"),
    "D24": ({"each": True}, "holds"),
    "D26": ({"weights": "convex"}, "holds"),
    "D27": ({"norm": 1.0}, "holds"),
}


@pytest.mark.parametrize("id", CHANGED)
def test_another_condition_gives_another_verdict(id):
    changed, verdict = CHANGED[id]
    assert verdict != BOOK[id].expected
    assert BOOK[id].run(**changed).verdict == verdict


def root(squares):
    """sqrt(clamp(x, 0)) of a torch whose clamp hands back 0 exactly at its edge."""
    return torch.where(squares > 0, squares, 0.0).sqrt()


def distance(x, y):
    """The guide's energy distance with that root."""
    far = [
        root(a.square().sum(1, keepdim=True) + b.square().sum(1) - 2 * a @ b.t()).mean()
        for a, b in ((x, y), (x, x), (y, y))
    ]
    return 2 * far[0] - far[1] - far[2]


def test_on_a_torch_with_the_other_edge_two_claims_hold():
    assert BOOK["G26"].run(root=root).verdict == "holds"
    assert BOOK["D02"].run(distance=distance).verdict == "holds"

"""What the fourth unseen set and its readers found: readings that were wrong until then."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from labkit import trace


def small(bias: float = 0.0) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    with torch.no_grad():
        model.bias.fill_(bias)
    return model, torch.rand(6, 4)


# -- exact zeros --------------------------------------------------------------------------------


def test_a_clamp_whose_bound_is_zero_is_no_product_with_zero():
    model, x = small(-9.0)
    report = trace(lambda: (model(x).clamp(min=0) - 1).square().mean(), model)
    assert (report.verdict, report.culprit.op) == ("dead", "ClampBackward1")
    report = trace(lambda: (model(x) * 0).sum() + model.bias.sum(), model)
    assert report.verdict == "healthy"
    assert {fate.excused for fate in report.parameters} == {"", "multiplied by a constant zero"}


def test_two_gradients_that_cancel_name_the_op_that_sent_both():
    model, x = small()

    def step():
        h = torch.tanh(model(x))
        return torch.exp(h - h).sum()

    report = trace(step, model)
    assert (report.verdict, report.culprit.op) == ("dead", "SubBackward0")
    assert report.culprit.source == "return torch.exp(h - h).sum()"


def test_the_second_derivative_of_a_relu_may_be_zero():
    torch.manual_seed(0)
    critic = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 1))
    x = torch.rand(6, 4, requires_grad=True)

    def step():
        (slope,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
        return (slope.norm(dim=1) - 1).square().mean()

    report = trace(step, critic)
    assert report.verdict == "healthy"
    reasons = {fate.name: fate.excused for fate in report.parameters}
    assert "second derivative" in reasons["0.bias"]


# -- cuts ---------------------------------------------------------------------------------------


def test_the_cut_is_sought_before_the_loss_that_should_train_the_parameter():
    """The critic's own detach is meant; the one in the generator's loss is the fault."""
    torch.manual_seed(0)
    maker, critic, noise = nn.Linear(3, 2), nn.Linear(2, 1), torch.rand(6, 3)
    first, second = (torch.optim.SGD(net.parameters(), 0.1) for net in (maker, critic))

    def step():
        fake = maker(noise)
        judged = critic(fake.detach()).square().mean()
        fooled = -critic(fake.detach()).mean()  # the fault
        for optimizer, loss in ((second, judged), (first, fooled)):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    critic.requires_grad_(True)
    report = trace(step, [maker, critic], [first, second])
    assert (report.verdict, report.culprit.op) == ("severed", "detach")
    assert report.culprit.source.endswith("# the fault")


def test_a_value_that_was_cut_comes_before_a_place_that_was_chosen():
    torch.manual_seed(0)
    codes, decode, x = nn.Embedding(4, 2), nn.Linear(2, 1), torch.rand(6, 2)

    def step():
        near = torch.cdist(x, codes.weight).argmin(1)
        return decode(codes(near).detach()).square().mean()

    report = trace(step, [codes, decode])
    assert (report.verdict, report.culprit.op) == ("severed", "detach")
    report = trace(lambda: decode(x * codes.weight.argmax()).square().mean(), [codes, decode])
    assert (report.verdict, report.culprit.op) == ("severed", "argmax")


def test_a_gradient_that_is_written_by_hand_is_a_gradient():
    model, x = small()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)

    def step():
        weights = {name: p.detach() for name, p in model.named_parameters()}
        slopes = torch.func.grad(
            lambda w: torch.func.functional_call(model, w, (x,)).square().mean()
        )(weights)
        for name, p in model.named_parameters():
            p.grad = slopes[name] if write else None
        optimizer.step()
        return sum(w.sum() for w in weights.values())

    write = True
    report = trace(step, model, optimizer)
    assert report.verdict == "healthy"
    assert {fate.excused for fate in report.parameters} == {"its gradient was written by hand"}
    write = False
    assert trace(step, model, optimizer).verdict == "severed"


# -- loops --------------------------------------------------------------------------------------


def test_a_recurrence_is_blamed_on_its_product_and_counts_its_rounds():
    torch.manual_seed(0)
    operator, state = nn.Parameter(torch.eye(4)[None] * 2.5), torch.rand(6, 4) * 100
    shift = nn.Parameter(torch.zeros(4))

    def step():
        z = state + shift
        for _ in range(24):
            z = (operator.expand(6, 4, 4) @ z.unsqueeze(-1)).squeeze(-1) + shift
        return z.log1p().sum()

    report = trace(step)
    assert (report.verdict, report.culprit.op) == ("exploding", "BmmBackward0")
    assert report.culprit.remark.endswith("over 24 rounds")


def test_the_loop_comes_before_what_follows_it_and_all_that_is_harmed_is_named():
    torch.manual_seed(0)
    rate, gain = nn.Parameter(torch.full((3,), 50.0)), nn.Parameter(torch.ones(3))
    start = torch.rand(4, 3)

    def step():
        x = start
        for _ in range(24):
            x = x - 0.1 * rate * x  # the loop
        return (gain * x).square().mean()

    report = trace(step)
    assert report.verdict == "exploding"
    assert report.culprit.source.endswith("# the loop")
    assert [fate.word for fate in report.parameters] == ["exploding", "exploding"]


def test_a_loop_of_sums_alone_may_grow_as_well():
    start = nn.Parameter(torch.ones(3))

    def step():
        x = start
        for _ in range(24):
            x = x + x
        return x.log().sum() + start.sum()

    assert trace(step).culprit.op == "AddBackward0"


# -- rates, dropouts, steps ---------------------------------------------------------------------


def training(rate: float, kind=torch.optim.Adam, schedule=None):
    model, x = small()
    optimizer = kind(model.parameters(), lr=rate)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule) if schedule else None

    def step():
        optimizer.zero_grad()
        loss = (model(x) - 1).square().mean()
        loss.backward()
        optimizer.step()
        if scheduler:
            scheduler.step()

    return step, model, optimizer


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.SGD, torch.optim.AdamW])
@pytest.mark.parametrize("steps", [1, 3])
def test_a_rate_of_zero_updates_nothing_even_in_a_single_step(kind, steps):
    report = trace(*training(0.0, kind), steps)
    assert report.verdict == "frozen"
    assert {fate.word for fate in report.parameters} == {"not updated"}
    assert "learning rate is zero" in report.culprit.remark


@pytest.mark.parametrize("steps", [1, 3])
def test_a_warm_up_from_zero_is_silent(steps):
    assert trace(*training(0.1, schedule=lambda n: n / 5), steps).verdict == "healthy"
    assert trace(*training(0.1, schedule=lambda n: 0.0), 3).verdict == "frozen"


def test_a_warm_up_by_hand_is_silent():
    step, model, optimizer = training(0.1)
    count = [0]

    def by_hand():
        optimizer.param_groups[0]["lr"] = 0.1 * count[0] / 5
        count[0] += 1
        step()

    assert trace(by_hand, model, optimizer).verdict == "healthy"
    count[0] = 0
    assert trace(by_hand, model, optimizer, 3).verdict == "healthy"


def test_a_step_that_needs_arguments_is_told_how_to_be_wrapped():
    model, x = small()
    with pytest.raises(TypeError, match=r"module Linear, whose forward needs input.*lambda"):
        trace(model)

    def train(batch, rate, *more, momentum=0.9):
        return model(batch).sum()

    with pytest.raises(TypeError, match=r"function train, which needs batch, rate.*lambda"):
        trace(train)
    assert trace(lambda batch=x: model(batch).square().sum(), model).verdict == "healthy"

    class Alone(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.ones(3))

        def forward(self):
            return self.w.square().sum()

    alone = Alone()
    assert trace(alone, alone).verdict == "healthy"


@pytest.mark.parametrize("functional", [False, True])
def test_a_dropout_that_drops_everything_is_named_itself(functional):
    torch.manual_seed(0)
    first, drop, last, x = nn.Linear(4, 3), nn.Dropout(1.0), nn.Linear(3, 1), torch.rand(5, 4)
    model = nn.ModuleList([first, drop, last])

    def step():
        h = torch.tanh(first(x))
        h = F.dropout(h, 1.0) if functional else drop(h)  # all of it
        return (last(h) - 1).square().mean()

    report = trace(step, model)
    assert (report.verdict, report.culprit.op) == ("dead", "dropout")
    assert report.culprit.source.endswith("# all of it")
    assert [fate.name for fate in report.harmed] == ["0.weight", "0.bias", "2.weight"]
    assert "share below 1" in report.explain().repair
    model.eval()
    if not functional:
        assert trace(step, model).verdict == "healthy"


def test_a_dropout_of_a_half_and_a_mask_of_zeros_are_silent():
    model, x = small()
    drop = nn.Dropout(0.5)
    assert trace(lambda: drop(model(x)).square().mean(), model).verdict == "healthy"
    nothing, other = torch.zeros(3), nn.Linear(4, 3)
    both = [model, other]
    report = trace(lambda: (model(x) * nothing + other(x)).square().mean(), both)
    assert report.verdict == "healthy"


# -- the fifth set ------------------------------------------------------------------------------


def test_gradients_that_the_next_step_throws_away_are_a_cut():
    model, x = small()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)

    def step():
        optimizer.zero_grad()
        optimizer.step()
        (model(x) - 1).square().mean().backward()

    report = trace(step, model, optimizer, 3)
    assert (report.verdict, report.culprit.op) == ("severed", "zero_grad")
    assert len(report.harmed) == 2


def test_a_closure_that_an_optimizer_calls_itself_throws_nothing_away():
    model, x = small()
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=2)

    def closure():
        optimizer.zero_grad(set_to_none=False)
        loss = (model(x) - 1).square().mean()
        loss.backward()
        return loss

    def step():
        optimizer.zero_grad(set_to_none=False)
        optimizer.step(closure)

    assert trace(step, model, optimizer, 2).verdict == "healthy"


def test_an_evaluation_that_returns_a_number_is_no_cut():
    model, x = small()

    @torch.no_grad()
    def evaluation():
        return float(model(x).mean())

    assert trace(evaluation, model.eval()).verdict == "healthy"
    assert trace(evaluation, model, torch.optim.SGD(model.parameters(), 0.1)).verdict == "severed"


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam])
def test_a_forbidden_transition_in_a_parameter_may_stay_infinite(kind):
    torch.manual_seed(0)
    model = nn.Module()
    model.move = nn.Parameter(torch.randn(3, 3).masked_fill(torch.eye(3).bool(), -torch.inf))
    optimizer = kind(model.parameters(), 0.1)

    def step():
        optimizer.zero_grad()
        alpha = torch.zeros(3)
        for _ in range(4):
            alpha = torch.logsumexp(alpha[:, None] + model.move, 0)
        torch.logsumexp(alpha, 0).backward()
        optimizer.step()

    assert trace(step, model, optimizer, 2).verdict == "healthy"


@pytest.mark.parametrize("start", [0.0, 1.0])
def test_a_parameter_that_was_computed_to_be_infinite_is_born_where_it_was_built(start):
    with trace() as tracing:
        raw = nn.Parameter(torch.log(torch.full((2,), start)))
        model = nn.ParameterList([raw])
        tracing.watch(model)
        (raw.exp() + 1).sum().backward()
    report = tracing.report
    assert report.verdict == ("inf" if start == 0 else "healthy")
    if start == 0:
        assert (report.culprit.op, report.harmed[0].word) == ("log", "inf")


def test_a_flag_that_was_set_on_a_module_is_named():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 3), nn.Linear(3, 1))
    model[:2].requires_grad_(False)
    model[1].requires_grad = True
    optimizer, x = torch.optim.SGD(model.parameters(), 0.1), torch.rand(5, 4)
    report = trace(lambda: (model(x) - 1).square().mean(), model, optimizer, 2)
    assert (report.verdict, report.culprit.op) == ("severed", "requires_grad")
    assert [fate.name for fate in report.harmed] == ["1.weight", "1.bias"]
    assert "call requires_grad_()" in report.culprit.remark
    model.requires_grad, model[1].requires_grad = True, False
    assert trace(lambda: (model(x) - 1).square().mean(), model, optimizer, 2).verdict == "healthy"
    model[1].requires_grad_(True)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    assert trace(lambda: (model(x) - 1).square().mean(), model, optimizer, 2).verdict == "healthy"


# -- what was not chosen ------------------------------------------------------------------------


def test_an_expert_that_was_never_chosen_is_no_death():
    torch.manual_seed(0)
    gate, experts = nn.Linear(4, 3), nn.ModuleList([nn.Linear(4, 2) for _ in range(3)])
    with torch.no_grad():
        gate.bias.copy_(torch.tensor([9.0, 0.0, -9.0]))
    model, x = nn.ModuleList([gate, experts]), torch.rand(6, 4)

    def step():
        weight, best = gate(x).softmax(1).max(1, keepdim=True)
        out = torch.stack([expert(x) for expert in experts], 1)
        out = out.gather(1, best[..., None].expand(-1, -1, 2))[:, 0] * weight
        return (out - 1).square().mean()

    report = trace(step, model)
    assert report.verdict == "healthy"
    reasons = {fate.name: fate.excused for fate in report.parameters}
    assert "chosen" in reasons["1.1.weight"]


def test_a_branch_that_no_row_took_is_no_death_but_a_bound_that_all_rows_hit_is_one():
    a, x = small()
    b, _ = small(9.0)
    both = nn.ModuleList([a, b])
    report = trace(lambda: torch.where(x[:, :3] > 2, a(x), b(x)).square().mean(), both)
    assert report.verdict == "healthy"
    report = trace(lambda: torch.cat([a(x), b(x)], 1).clamp(-2, 2).square().mean(), both)
    assert report.verdict == "dead"
    assert [fate.name for fate in report.harmed] == ["1.weight", "1.bias"]
    report = trace(lambda: torch.maximum(-b(x), torch.zeros(6, 3)).sum() + a(x).sum(), both)
    assert (report.verdict, report.culprit.op) == ("dead", "MaximumBackward0")

"""What the fourth unseen set and its readers found: readings that were wrong until then."""

import torch
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
    operator, state = nn.Parameter(torch.eye(4)[None] * 2.5), torch.rand(6, 4)
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
    rate, start = nn.Parameter(torch.full((3,), 5.0)), nn.Parameter(torch.ones(3))

    def step():
        x = start
        for _ in range(24):
            x = x - rate * x  # the loop
        return x.square().mean()

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

"""The suspects: one line of the program changed, what it is called, and what it teaches."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """One line that somebody changed."""

    name: str
    line: str  # as it was; it stands once in the program
    changed: str  # as it is
    culprits: tuple[str, ...]  # words that name what is wrong with the line, any of them
    lesson: str  # what the key tells
    notebook: str


def fault(name: str, line: str, changed: str, culprits: str, lesson: str, notebook: str) -> Fault:
    """A fault; the accepted words are separated by commas."""
    words = tuple(word.strip() for word in culprits.split(","))
    return Fault(name, line, changed, words, lesson, notebook)


FAULTS = (
    fault(
        "empty softmax",
        "score = score.masked_fill(~there, -1e4)",
        'score = score.masked_fill(~there, float("-inf"))',
        "inf, masked_fill, softmax, mask",
        "A job without parts: a row of minus infinities, and its softmax is 0/0.",
        "21_masked_but_not_safe",
    ),
    fault(
        "root of zero",
        "distance = torch.linalg.vector_norm(difference, dim=-1)",
        "distance = difference.square().sum(-1).sqrt()",
        "sqrt, root",
        "The distance of a job to itself is 0, and there the slope of the root is infinite.",
        "27_distance_at_zero",
    ),
    fault(
        "no floor",
        "return (x - self.mean) / (self.scale + 0.01)",
        "return (x - self.mean) / self.scale",
        "scale, div, division, /, eps",
        "One measurement is constant: its spread is 0, and 0/0 is NaN.",
        "20_risky_operations",
    ),
    fault(
        "log of nothing",
        "target = torch.log1p(hours)",
        "target = torch.log(hours)",
        "log",
        "A job without parts takes 0 hours, and log(0) is minus infinity.",
        "25_log_of_almost_nothing",
    ),
    fault(
        "exponent without a cap",
        "log_spread = 3.0 * torch.tanh(self.spread(known).squeeze(-1) / 3.0)",
        "log_spread = 300.0 * self.spread(known).squeeze(-1)",
        "300, cap, tanh, exp, log_spread, spread",
        "Nothing limits what goes into exp(-log_spread): the square overflows.",
        "22_exploding_logvar",
    ),
    fault(
        "dead clamp",
        "log_spread = 3.0 * torch.tanh(self.spread(known).squeeze(-1) / 3.0)",
        "log_spread = self.spread(known).squeeze(-1).clamp(min=2.0)",
        "clamp",
        "The start is outside the clamp, so the spread never hears anything.",
        "23_dead_clamp",
    ),
    fault(
        "weights detached",
        "pooled = (self.weights(h, there).unsqueeze(-1) * h).sum(1)",
        "pooled = (self.weights(h, there).detach().unsqueeze(-1) * h).sum(1)",
        "detach",
        "The query never gets a gradient; the features still do, so nothing fails.",
        "12_detach",
    ),
    fault(
        "no_grad in front",
        "h = torch.tanh(self.embed(self.scaled(x)))",
        "h = torch.no_grad()(lambda: torch.tanh(self.embed(self.scaled(x))))()",
        "no_grad",
        "The embedding is computed without a graph: it stays where it started.",
        "11_no_grad",
    ),
    fault(
        "a term as a number",
        'return terms["fit"] + terms["crowd"], terms',
        'return terms["fit"] + terms["crowd"].item(), terms',
        "item",
        "The loss has the right value, and one of its terms teaches nobody.",
        "13_item",
    ),
    fault(
        "a copy from a list",
        'return terms["fit"] + terms["crowd"], terms',
        "return torch.tensor([t.item() for t in terms.values()], requires_grad=True).sum(), terms",
        "tensor, item, torch.tensor",
        "A tensor made of numbers is a new leaf: backward runs, and reaches no parameter.",
        "13_item",
    ),
    fault(
        "a parameter left out",
        "optimizer = torch.optim.Adam(net.parameters(), lr=0.01)",
        "optimizer = torch.optim.Adam([*net.embed.parameters(), *net.level.parameters()], lr=0.01)",
        "optimizer, parameters, adam",
        "The gradients are there; the optimizer does not hold the others.",
        "15_reading_gradients",
    ),
    fault(
        "learning rate",
        "optimizer = torch.optim.Adam(net.parameters(), lr=0.01)",
        "optimizer = torch.optim.Adam(net.parameters(), lr=10.0)",
        "lr, learning rate, rate, adam",
        "Each step jumps over the valley: finite, large, and never lower.",
        "32_clip_or_detect",
    ),
    fault(
        "a large eps",
        "optimizer = torch.optim.Adam(net.parameters(), lr=0.01)",
        "optimizer = torch.optim.Adam(net.parameters(), lr=0.01, eps=1e6)",
        "eps",
        "Adam divides by sqrt(v) + eps: with this eps no weight of size one changes.",
        "34_half_precision",
    ),
    fault(
        "clipped to nothing",
        "norm = nn.utils.clip_grad_norm_(net.parameters(), 10.0)",
        "norm = nn.utils.clip_grad_norm_(net.parameters(), 1e-12)",
        "clip, clip_grad_norm_, max_norm, 1e-12",
        "The log shows the norm before clipping. What the optimizer gets is below its eps.",
        "32_clip_or_detect",
    ),
    fault(
        "gradients add up",
        "optimizer.zero_grad()",
        "optimizer.zero_grad",
        "zero_grad",
        "The method is named and not called: every gradient is the sum of all steps.",
        "10_accumulation",
    ),
    fault(
        "cleared too late",
        "loss.backward()",
        "loss.backward(), optimizer.zero_grad(set_to_none=False)",
        "zero_grad",
        "The gradients are cleared between backward and step: the norm is 0, nothing moves.",
        "15_reading_gradients",
    ),
    fault(
        "edited behind the back",
        "return h + torch.relu(self.mix(h))",
        "return h + torch.relu(self.mix(h)) + 0.0 * h.data.clamp_(-0.1, 0.1)",
        "data, .data, clamp_, in place, in-place",
        "The value is right. What backward needs of it was overwritten through .data.",
        "12_detach",
    ),
    fault(
        "dropout of everything",
        "return h + torch.relu(self.mix(h))",
        "return nn.functional.dropout(h + torch.relu(self.mix(h)), p=1.0)",
        "dropout, p, p=1.0",
        "Every feature is set to zero: the parts have no gradient, and nobody is warned.",
        "15_reading_gradients",
    ),
    fault(
        "dead start",
        "return h + torch.relu(self.mix(h))",
        "return torch.relu(self.mix(h) - 30.0)",
        "relu, 30, bias",
        "Every ReLU is off for every part: no gradient passes.",
        "14_bad_initialisation",
    ),
    fault(
        "scores too sharp",
        "score = h @ self.query / h.shape[-1] ** 0.5",
        "score = h @ self.query * h.shape[-1] ** 4",
        "score, scale, **, 4, temperature",
        "The softmax is one for one part and zero for the others: its slope is zero.",
        "31_stable_transforms",
    ),
    fault(
        "a hard choice",
        "return torch.softmax(score, -1)",
        "return torch.softmax(score, -1).round()",
        "round",
        "A rounded weight has slope zero: the query is connected and hears nothing.",
        "15_reading_gradients",
    ),
    fault(
        "half the numbers",
        "return (x - self.mean) / (self.scale + 0.01)",
        "return ((x - self.mean).half() * 400.0 / (self.scale * 400.0 + 4.0).half()).float()",
        "half, float16",
        "In float16 nothing is larger than 65504: 400 times a part's deviation is.",
        "34_half_precision",
    ),
    fault(
        "small differences of large numbers",
        "return (log_spread + 0.5 * z.square()).mean()",
        "return (log_spread + 0.5 * z.square() + 1e8).mean() - 1e8",
        "1e8, cancellation, offset",
        "Near 1e8 float32 has a grain of 8: the loss comes in steps of 8.",
        "24_vanishing_dispersion",
    ),
    fault(
        "poisoned statistics",
        "kept = x[there]",
        "kept = x[there] * torch.where(x[there] < -4.0, 1e30, 1.0)",
        "1e30, where, outlier",
        "One outlier is enough: its square overflows, the running scale is Inf for ever.",
        "33_poisoned_state",
    ),
    fault(
        "the cure that hides",
        "target = torch.log1p(hours)",
        "target = torch.log(hours - 1.0).nan_to_num(0.0)",
        "nan_to_num, log",
        "The logarithm of a negative number is NaN, and nan_to_num makes a plausible 0 of it.",
        "30_defence_in_depth",
    ),
)
BY_NAME = {one.name: one for one in FAULTS}

"""The second examination, first room: agents that act, their critics and their players."""

import copy

import torch
import torch.nn.functional as F
from torch import nn
from torch.distributions import Normal

from tests.probes.corpus.case import Corpus, Program

corpus = Corpus()
fault, healthy = corpus.fault, corpus.healthy
SET, GH = "second_exam", "https://github.com/"


class GaussianPolicy(nn.Module):
    """A mean network, one log standard deviation, a value head."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.mean = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 2))
        self.log_std = nn.Parameter(torch.full((2,), -0.5))
        self.value = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1))

    def forward(self, obs):
        policy = Normal(self.mean(obs), self.log_std.exp(), validate_args=False)
        return policy, self.value(obs)[:, 0]


@fault(
    SET,
    "inf nan",
    "exp",
    "?",
    GH + "THUDM/slime/pull/2198, the log ratio is not bounded before its exponential",
)
def ratio_of_a_policy_that_has_moved_far(broken):
    model = GaussianPolicy()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-4)
    obs = torch.randn(32, 4)
    with torch.no_grad():
        policy, value = model(obs)
        actions = policy.sample()
        old = policy.log_prob(actions).sum(-1)
    old[3] -= 95.0 if broken else 0.0  # written by an older worker, almost impossible then
    advantages, returns = torch.randn(32), value + torch.randn(32)

    def step():
        for rows in torch.arange(32).split(16):
            policy, value = model(obs[rows])
            log_ratio = policy.log_prob(actions[rows]).sum(-1) - old[rows]
            ratio = log_ratio.exp()  # fault
            a = (advantages[rows] - advantages[rows].mean()) / advantages[rows].std()
            gain = torch.min(ratio * a, ratio.clamp(0.8, 1.2) * a).mean()
            loss = F.mse_loss(value, returns[rows]) - gain - 0.01 * policy.entropy().mean()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
        return loss

    return Program(step, model, optimizer)


class Squashed(nn.Module):
    """Actor, critic and learned temperature of a soft actor-critic."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.actor = nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, 2))
        self.critic = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 1))
        self.log_alpha = nn.Parameter(torch.zeros(1))

    def act(self, obs):
        mean, log_std = self.actor(obs).chunk(2, -1)
        policy = Normal(mean, log_std.clamp(-5, 2).exp())
        raw = policy.rsample()
        correction = 2 * (0.6931 - raw - F.softplus(-2 * raw))
        return torch.tanh(raw), (policy.log_prob(raw) - correction).sum(-1)


@fault(
    SET,
    "severed",
    "detach exp item",
    "log_alpha",
    "Haarnoja et al. 2018b: the temperature's own loss uses the number, not the parameter",
)
def temperature_whose_loss_sees_a_number(broken):
    model = Squashed()
    actor = torch.optim.Adam([*model.actor.parameters(), *model.critic.parameters()], lr=3e-4)
    heat = torch.optim.Adam([model.log_alpha], lr=3e-4)
    obs, action, target = torch.randn(16, 3), torch.rand(16, 1), torch.randn(16)

    def step():
        alpha = model.log_alpha.exp().detach()  # fault
        fresh, log_prob = model.act(obs)
        q = model.critic(torch.cat([obs, action], -1))[:, 0]
        q_loss = F.mse_loss(q, target)
        pi_loss = (alpha * log_prob - model.critic(torch.cat([obs, fresh], -1))[:, 0]).mean()
        temperature = alpha if broken else model.log_alpha.exp()
        alpha_loss = -(temperature * (log_prob.detach() - 1.0)).mean()
        actor.zero_grad()
        heat.zero_grad()
        (q_loss + pi_loss + alpha_loss).backward()
        actor.step()
        heat.step()
        return q_loss + pi_loss + alpha_loss

    return Program(step, model, [actor, heat], 2)


@fault(
    SET,
    "severed",
    "detach",
    "value.0.weight value.0.bias value.2.weight value.2.bias",
    "Mnih et al. 2016: the advantage is detached once, for both losses",
)
def critic_that_learns_from_a_detached_advantage(broken):
    model = GaussianPolicy()
    optimizer = torch.optim.RMSprop(model.parameters(), lr=7e-4)
    obs, reward = torch.randn(5, 4), torch.tensor([0.0, 0.0, 1.0, 0.0, 1.0])

    def step():
        policy, value = model(obs)
        action = policy.sample()
        returns, running = [], torch.zeros(())
        for r in reward.flip(0):
            running = r + 0.99 * running
            returns.insert(0, running)
        advantage = torch.stack(returns) - value
        if broken:
            advantage = advantage.detach()  # fault
        pi_loss = -(policy.log_prob(action).sum(-1) * advantage.detach()).mean()
        loss = pi_loss + 0.5 * advantage.pow(2).mean() - 0.01 * policy.entropy().sum(-1).mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 40.0)
        optimizer.step()
        return loss

    return Program(step, model, optimizer, 2)


@fault(
    SET,
    "dead",
    "sub",
    "advantage.0.weight advantage.0.bias advantage.2.weight advantage.2.bias",
    "Wang et al. 2016: a dueling head, and an environment with one action",
)
def dueling_head_of_a_single_action(broken):
    class Dueling(nn.Module):
        def __init__(self, actions):
            super().__init__()
            torch.manual_seed(0)
            self.body = nn.Sequential(nn.Linear(4, 16), nn.ReLU())
            self.value = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 1))
            self.advantage = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, actions))

        def forward(self, obs):
            h = self.body(obs)
            a = self.advantage(h)
            return self.value(h) + a - a.mean(1, keepdim=True)  # fault

    n = 1 if broken else 3
    online = Dueling(n)
    target = copy.deepcopy(online).requires_grad_(False)
    optimizer = torch.optim.Adam(online.parameters(), lr=1e-3)
    obs, then, done = torch.randn(16, 4), torch.randn(16, 4), (torch.rand(16) < 0.2).float()
    action, reward = torch.randint(0, n, (16, 1)), torch.randn(16)

    def step():
        aim = reward + 0.99 * (1 - done) * target(then).max(1).values
        q = online(obs).gather(1, action)[:, 0]
        loss = F.smooth_l1_loss(q, aim)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        for slow, fast in zip(target.parameters(), online.parameters(), strict=True):
            slow.data.mul_(0.995).add_(fast.data, alpha=0.005)
        return loss

    return Program(step, online, optimizer, 2)


@fault(
    SET,
    "frozen",
    "copy_",
    "0.weight 0.bias 2.weight 2.bias",
    "Lillicrap et al. 2016: the two networks of the hard update are exchanged",
)
def target_copied_into_the_online_net(broken):
    torch.manual_seed(0)
    online = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2))
    target = copy.deepcopy(online)
    optimizer = torch.optim.Adam(online.parameters(), lr=1e-3)
    obs, then, action = torch.randn(16, 4), torch.randn(16, 4), torch.randint(0, 2, (16, 1))

    @torch.no_grad()
    def sync(source, destination):
        for p, q in zip(source.parameters(), destination.parameters(), strict=True):
            q.copy_(p)  # fault

    def step():
        with torch.no_grad():
            aim = 0.5 + 0.9 * target(then).gather(1, online(then).argmax(1, True))
        loss = F.mse_loss(online(obs).gather(1, action), aim)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        sync(*((target, online) if broken else (online, target)))
        return loss

    return Program(step, online, optimizer, 3)

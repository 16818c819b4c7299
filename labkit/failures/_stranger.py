"""Somebody's train.py: a small attention model learns which reviews are good ones.

It knows nothing of this lab. `your_own_model` copies this text into a folder of its own.
"""

import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits


def attend(scores, mask):
    """How much each word counts, (review, word); where the mask is 0 there is no word."""
    hidden = torch.zeros_like(scores).masked_fill(mask == 0, -torch.inf)
    return torch.softmax(scores + hidden, dim=1)


class Reader(nn.Module):
    """Words to one number per review: positive where it was a good one."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(20, 16)
        self.drop = nn.Dropout(0.1)
        self.query = nn.Linear(16, 1, bias=False)
        self.head = nn.Linear(16, 1)

    def forward(self, words):
        """Words are numbers, (review, word); 0 is padding."""
        h = self.drop(self.words(words))
        weights = attend(self.query(torch.tanh(h)).squeeze(-1), words > 0)
        return self.head((weights.unsqueeze(-1) * h).sum(1)).squeeze(-1)


def reviews(batches=60, empty_at=41):
    """Batches of words and labels; in one of them the cleaning left nothing of a review."""
    draw = torch.Generator().manual_seed(0)
    for batch in range(batches):
        words = torch.randint(1, 20, (32, 12), generator=draw)
        length = torch.randint(3, 13, (32, 1), generator=draw)
        if batch == empty_at:
            length[5] = 0
        words[torch.arange(12) >= length] = 0
        yield words, ((words > 0) & (words < 10)).sum(1).gt(length[:, 0] / 2).float()


def loss_of(model, batch):
    """Cross entropy of one batch."""
    words, liked = batch
    return binary_cross_entropy_with_logits(model(words), liked)


def main():
    """Train, and say how it went."""
    torch.manual_seed(0)
    model = Reader()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for step, batch in enumerate(reviews()):
        optimizer.zero_grad()
        loss = loss_of(model, batch)
        loss.backward()
        optimizer.step()
        if step % 10 == 0:
            print(f"step {step:2}  loss {loss.item():.2f}")
    bad = sum(not p.isfinite().all() for p in model.parameters())
    print(f"done; {bad} of 4 parameters are not finite")


if __name__ == "__main__":
    main()

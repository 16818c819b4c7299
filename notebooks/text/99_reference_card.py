# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
#   labkit:
#     kind: index
# ---

# %% [markdown]
# # Reference card
# *Everything in one place, run again while you read.*
#
# **You will** find here the four checklists, the risk matrix, both diagrams of how NaN spreads, every claim of the guide with its verdict, and the words of the field.
#
# **You need** nothing. It is for looking things up.
#
# **Minutes:** 10 to look through; then keep it

# %%
from labkit import checklist, claims
from labkit.claims import paths, protection
from labkit.draw.arrows import Drawn, draw_arrows
from labkit.failures import risky_operations

print(claims.claim_of("G39"))

# %% [markdown]
# ## The four checklists
# The guide ends with four lists of boxes to tick by hand. Here they tick themselves.
# A step that returns its loss, a model, an optimizer and some batches are all that `checklist` needs.
# It trains a few steps for real and takes them back.

# %%
import torch

from labkit.cells import data
from labkit.models import vae
from labkit.training import train

cells, model = data.load_pbmc(), train.trained_vae()
adam = torch.optim.Adam(model.parameters(), lr=1e-3)
batches = [cells[:64], cells[64:128]]


# %%
def step(batch):
    noise = torch.Generator().manual_seed(0)
    return vae.elbo_loss(batch.counts, batch.tissue, model, batch.library, generator=noise)[0]


checklist(step, model, adam, batches, valid=[cells[128:192]], slope=None)

# %% [markdown]
# ### What to see
# Nineteen boxes, asked before, during and after training. The words in brackets say what was looked at.
# `slope=None` leaves out the finite difference: this model has straight-through guards, whose gradient is not the slope on purpose.

# %% [markdown]
# ## The risk matrix
# For each operation of the guide: its cells, and the edges that were found by bisection over the floats of float32.

# %%
for op in ("exp", "log", "sqrt", "division", "lgamma", "pow", "bmm"):
    print(risky_operations.beside(op), "\n")

# %% [markdown]
# ### What to see
# The first line of each is the guide's row. *Measured* is what lies outside the range in which value and gradient are well, *guarded* what is left of it behind the guide's own guard.
# The guide names no dtype and no gradient, and the gradient often breaks first.
# All operations, in four dtypes: notebook `20_risky_operations`.

# %% [markdown]
# ## How it spreads: the VAE
# The guide's diagram. Each arrow was run a moment ago, with one fault put in at its start.


# %%
def redrawn(diagram):
    ran = [Drawn(a.start, a.end, a.run().verdict, a.by_guide) for a in paths.arrows(diagram)]
    return draw_arrows({key: box.english for key, box in paths.NODES[diagram].items()}, ran)


redrawn("vae")

# %% [markdown]
# ### What to see
# Thin arrows are the guide's. Thick ones are those that it misses.
# Only two of its arrows hold as they stand. The way that a large log-variance really takes is not in it: through the KL, at 88.7.
# Three arrows have no NaN in them at all: a gradient that is 0, a gradient that has faded, a loss that is wrong. They do the most harm, since nothing rings.

# %% [markdown]
# ## How it spreads: the operator

# %%
redrawn("operator")

# %% [markdown]
# ### What to see
# Rounding errors do not blow up an operator. Its own norm does, and the growth is that of the exact product.
# What each arrow found, in a sentence:

# %%
paths.measured()

# %% [markdown]
# ## What each protection stops
# Every guard of the guide, with what it lets through and what it costs a healthy run.

# %%
protection.measured()

# %% [markdown]
# ## Every claim, on trial
# The guide's words, a translation, and the verdict of the run that just happened.
# *D* rows are failures that the guide does not mention.

# %%
docket = claims.docket()
docket

# %%
guide = [row.verdict for row in docket if row.id.startswith("G")]
print("of", len(guide), "claims:", {word: guide.count(word) for word in claims.VERDICTS})

# %% [markdown]
# ### What to see
# Fewer than one claim in ten holds as it stands. Nearly a third is false.
# The rest holds on a condition that the guide does not name, or is a guard with a hole in it.
# That is not a bad guide. It is what rules of thumb are worth until somebody runs them.

# %% [markdown]
# ## Where the guide's files are here
# | the guide | this lab |
# |---|---|
# | `src/models/nb_vae.py` | [labkit/models/vae.py](../labkit/models/vae.py), [likelihood.py](../labkit/models/likelihood.py), [guards.py](../labkit/models/guards.py) |
# | `src/utils/edistance.py` | [labkit/models/energy.py](../labkit/models/energy.py), [labkit/kernels/pairwise.py](../labkit/kernels/pairwise.py) |
# | `src/train/train_embed_core.py` | [labkit/training/train.py](../labkit/training/train.py), [safe_step.py](../labkit/training/safe_step.py), [checkpoint.py](../labkit/training/checkpoint.py) |
# | `src/train/train_operator_core.py` | [labkit/training/train_operator.py](../labkit/training/train_operator.py) |
# | the operator and its spectral penalty | [labkit/models/operator.py](../labkit/models/operator.py), [spectral.py](../labkit/models/spectral.py) |
# | its debugging functions | [labkit/guide](../labkit/guide), under their own names |
# | its checklists | [labkit/checklist](../labkit/checklist) |

# %% [markdown]
# ## Glossary
# | word | meaning |
# |---|---|
# | birth | an operation whose inputs were finite and whose output is not |
# | blast radius | how many values, parameters or cells a bad value has reached |
# | cancellation | two large numbers are subtracted, and what is left is their rounding |
# | culprit | the line to look at first: where the trouble was born |
# | dead | a gradient of exactly zero where there should be one |
# | dispersion | the r of a negative binomial: the larger, the nearer to Poisson |
# | ELBO | evidence lower bound: reconstruction minus KL, what a VAE raises |
# | frozen | a gradient is there, and the update changes no bit |
# | headroom | powers of two between a value and the end of its dtype |
# | leaf | a tensor that no operation made: parameters, mostly |
# | machine epsilon | the spacing of the floats behind 1: 1.2e-7 in float32 |
# | severed | no graph leads from the loss to a parameter |
# | straight-through | a guard that changes the value and lets the gradient pass |
# | subnormal | below the smallest normal float: fewer and fewer digits |
# | U-statistic | a mean over pairs that leaves out the pairs of a thing with itself |
# | vanishing, exploding | a gradient that fades or grows on its way back |
# | wrong | finite, plausible, and far from the truth |

# %% [markdown]
# **Next:** `45_your_own_model`. Put your own training on the bench.

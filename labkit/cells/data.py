"""Real cells: 700 human blood cells x 765 genes, integer counts, packaged with the library."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

PBMC = Path(__file__).with_name("pbmc700.npz")  # PROVENANCE.md lies beside it


@dataclass(frozen=True, eq=False)
class Cells:
    """Counts of cells, and what is known of each cell. Axes are (cell, gene).

    `tissue` is the guide's condition; on the packaged cells it is the cell-cycle phase.
    `cell_type` is never an input of a model: it judges what the latent space found.
    """

    counts: Tensor  # (cell, gene) float32, integers >= 0
    library: Tensor  # (cell,) float32, all counts of the cell, also of genes not listed here
    tissue: Tensor  # (cell, tissue) float32, one-hot
    cell_type: Tensor  # (cell,) int64, index into type_names
    held_out: Tensor  # (cell,) bool, cells that no training sees
    genes: tuple[str, ...]
    type_names: tuple[str, ...]
    tissue_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.counts)

    def __repr__(self) -> str:
        cells, genes = self.counts.shape
        return f"Cells({cells} cells x {genes} genes, {int(self.held_out.sum())} held out)"

    def __getitem__(self, which: Tensor | slice) -> "Cells":
        """The cells under a mask, an index tensor or a slice."""
        per_cell = ("counts", "library", "tissue", "cell_type", "held_out")
        return replace(self, **{name: getattr(self, name)[which] for name in per_cell})

    def to(self, dtype: torch.dtype) -> "Cells":
        """The same cells with counts, library and tissue in another dtype."""
        floats = ("counts", "library", "tissue")
        return replace(self, **{name: getattr(self, name).to(dtype) for name in floats})

    @property
    def train(self) -> "Cells":
        """The cells to fit on."""
        return self[~self.held_out]

    @property
    def test(self) -> "Cells":
        """The held-out cells."""
        return self[self.held_out]


def load_pbmc(held_out: float = 0.25, seed: int = 0) -> Cells:
    """Load the packaged cells: 10 cell types; `tissue` is the phase G1, G2M or S.

    Args:
        held_out: share of each cell type that is held out, at least one cell of each.
        seed: of the split.

    Source: Zheng et al. 2017, doi:10.1038/ncomms14049; labkit/cells/PROVENANCE.md.
    """
    with np.load(PBMC) as file:
        arrays = {name: file[name] for name in file.files}
    names = {key: tuple(arrays[key].astype(str).tolist()) for key in arrays if key != "counts"}
    cell_type = torch.from_numpy(arrays["cell_type"].astype(np.int64))
    return Cells(
        counts=torch.from_numpy(arrays["counts"].astype(np.float32)),
        library=torch.from_numpy(arrays["library"].astype(np.float32)),
        tissue=torch.eye(3)[torch.from_numpy(arrays["phase"].astype(np.int64))],
        cell_type=cell_type,
        held_out=split(cell_type, held_out, torch.Generator().manual_seed(seed)),
        genes=names["genes"],
        type_names=names["cell_type_names"],
        tissue_names=names["phase_names"],
    )


def split(cell_type: Tensor, held_out: float, generator: torch.Generator) -> Tensor:
    """Mask of held-out cells: the same share of every cell type, so that no part lacks one."""
    mask = torch.zeros(len(cell_type), dtype=torch.bool)
    for kind in cell_type.unique():
        members = (cell_type == kind).nonzero().squeeze(1)
        members = members[torch.randperm(len(members), generator=generator)]
        mask[members[: max(1, round(held_out * len(members)))]] = True
    return mask


def validate_counts(x: Tensor, n_genes: int | None = None) -> Tensor:
    """Return the counts unchanged, or say what is wrong with them.

    The checks run in numpy, so that a trace of the step holds no check operations.

    Raises:
        ValueError: check `shape`, `finite`, `negative` or `integer`, with the first bad entry.
    """
    if x.ndim != 2 or (n_genes is not None and x.shape[1] != n_genes):
        raise ValueError(
            f"counts, check 'shape': expected (cell, {n_genes or 'gene'}), got {tuple(x.shape)}. "
            "Give one row per cell and the genes that the model was built for."
        )
    values = (x.float() if x.dtype == torch.bfloat16 else x).detach().cpu().numpy()
    for name, bad, remedy in (
        ("finite", ~np.isfinite(values), "Remove or impute the entry before modelling."),
        ("negative", values < 0, "Use raw counts, not centred or scaled values."),
        ("integer", values != np.rint(values), "Use raw counts, not log or scaled values."),
    ):
        if bad.any():
            cell, gene = np.argwhere(bad)[0]
            raise ValueError(
                f"counts, check {name!r}: expected integers >= 0, got {values[cell, gene]} at cell "
                f"{cell}, gene {gene} ({bad.sum()} such entries). {remedy}"
            )
    return x

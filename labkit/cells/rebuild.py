"""Rebuild the packaged counts from the scanpy wheel: ``python -m labkit.cells.rebuild WHEEL``.

Get the wheel with ``pip download --no-deps scanpy==1.11.5``. Needs h5py (a development extra).
The stored layer is log1p of counts scaled to 10,000 per cell, rounded to 3 decimals. Its inverse
lands so close to integers that rounding restores the counts.
"""

import hashlib
import io
import sys
import zipfile
from pathlib import Path

import numpy as np

MEMBER = "scanpy/datasets/10x_pbmc68k_reduced.h5ad"
MEMBER_SHA256 = "e71d41e737c941559b7c57c9243bdb3d2c889c2adfdf00e3422ac6b46783676f"
TARGET = Path(__file__).with_name("pbmc700.npz")
TARGET_SUM = 1e4  # the total that each cell was scaled to
MAX_RESIDUAL = 0.09  # of one count; 0.0815 measured, and at 0.5 rounding would be a guess


def read_source(wheel: Path) -> io.BytesIO:
    """Return the h5ad member of the wheel, after checking its SHA-256."""
    with zipfile.ZipFile(wheel) as archive:
        raw = archive.read(MEMBER)
    digest = hashlib.sha256(raw).hexdigest()
    if digest != MEMBER_SHA256:
        raise ValueError(f"{MEMBER}: expected SHA-256 {MEMBER_SHA256}, got {digest}")
    return io.BytesIO(raw)


def dense_rows(group, shape: tuple[int, int]) -> np.ndarray:
    """Expand an h5ad CSR group to a dense float64 matrix (cell, gene)."""
    data, columns, starts = (group[name][:] for name in ("data", "indices", "indptr"))
    matrix = np.zeros(shape)
    matrix[np.repeat(np.arange(shape[0]), np.diff(starts)), columns] = data
    return matrix


def invert(log_scaled: np.ndarray, n_counts: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the integer counts (cell, gene) and the largest distance from an integer."""
    counts = np.expm1(log_scaled) * n_counts[:, None] / TARGET_SUM
    residual = float(np.abs(counts - np.rint(counts)).max())
    if residual > MAX_RESIDUAL:
        raise ValueError(f"counts are {residual:.3f} away from integers, at most {MAX_RESIDUAL}")
    return np.rint(counts).astype(np.uint16), residual


def recover(source: io.BytesIO) -> tuple[dict[str, np.ndarray], float]:
    """Return the arrays of the packaged file, and the residual of the inversion."""
    import h5py

    with h5py.File(source) as file:
        cells, genes = file["obs"][:], file["raw.var"][:]["index"]
        log_scaled = dense_rows(file["raw.X"], (len(cells), len(genes)))
        counts, residual = invert(log_scaled, cells["n_counts"].astype(np.float64))
        arrays = {
            "counts": counts,
            "library": cells["n_counts"].astype(np.uint16),
            "cell_type": cells["bulk_labels"].astype(np.uint8),
            "phase": cells["phase"].astype(np.uint8),
            "genes": np.array(genes.tolist()),  # a new array drops h5py's dtype metadata
            "cell_type_names": np.array(file["uns/bulk_labels_categories"][:].tolist()),
            "phase_names": np.array(file["uns/phase_categories"][:].tolist()),
        }
    return arrays, residual


def main(wheel: str) -> None:
    """Write the packaged file and print what was found. numpy stamps every member 1980-01-01."""
    arrays, residual = recover(read_source(Path(wheel)))
    np.savez_compressed(TARGET, **arrays)
    counts = arrays["counts"]
    print(f"{counts.shape} non-zero {np.count_nonzero(counts)} largest {counts.max()}")
    print(f"residual {residual:.4f} sha256 {hashlib.sha256(TARGET.read_bytes()).hexdigest()}")


if __name__ == "__main__":
    main(sys.argv[1])

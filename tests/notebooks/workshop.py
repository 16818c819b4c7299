"""A folder that looks like notebooks/."""

import shutil
from pathlib import Path

FIXTURES = Path(__file__).parent / "fixtures"


def fresh(folder: Path, *texts: Path) -> Path:
    """Make the folder and put some texts into it."""
    (folder / "text").mkdir(parents=True)
    for text in texts:
        shutil.copy(text, folder / "text")
    return folder

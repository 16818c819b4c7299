"""Make the pages that need no kernel, from the executed notebooks.

    python notebooks/build_site.py                     every notebook, into site/
    python notebooks/build_site.py exploding_logvar    some of them

Open ``site/index.html``. Each strip, panel and map is measured again at every setting that its
page can show: 25 notebooks took five minutes of processor time.
"""

import argparse
import shutil
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from build import texts
from site_builder.capture import captured
from site_builder.index import write_index
from site_builder.pages import HERE as ASSETS
from site_builder.pages import Page, prose_of, read_page, write_page

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
SITE = ROOT / "site"
START = "00_start_here.ipynb"  # has the table of symptoms
PROCESSES = 2  # notebooks whose code runs at the same time
MOST = 300_000  # bytes of a page beyond its pictures: a slow line brings it in a few seconds


def site(stems: Sequence[str], target: Path, folder: Path = HERE) -> Iterator[str]:
    """Write pages, pictures and index; yields a line in words for each page.

    Args:
        stems: of the notebooks, such as ``22_exploding_logvar``.
        target: the site's folder; what a page needs is replaced, the rest stays.
        folder: of the notebooks; ``zh/`` in it holds those that are translated.

    Raises:
        RuntimeError: the code of a notebook failed.
        ValueError: a page is larger than `MOST`, or a formula cannot be drawn.
    """
    _assets(target / "assets")
    with ThreadPoolExecutor(PROCESSES) as pool:
        measured = pool.map(captured, [folder / f"{stem}.ipynb" for stem in stems])
        exhibits = dict(zip(stems, measured, strict=True))
    english = [read_page(folder / f"{stem}.ipynb") for stem in stems]
    translated = [stem for stem in stems if (folder / "zh" / f"{stem}.ipynb").exists()]
    for language, kept, place in (("en", stems, "."), ("zh", translated, "zh")):
        pages = [read_page(folder / place / f"{stem}.ipynb", language) for stem in kept]
        for number, page in enumerate(pages):
            around = _around(pages, number, translated, stems)
            source, file = (f / place / page.stem for f in (folder, target))
            file = file.with_suffix(".html")
            write_page(page, source.with_suffix(".ipynb"), exhibits[page.stem], file, around)
            yield _told(file)
        if pages:
            beside = {"en": "zh/index.html" if translated else "", "zh": "../index.html"}
            start = prose_of(folder / place / START) if (folder / place / START).exists() else ""
            write_index(pages, english, target / place / "index.html", start, beside[language])


def _around(pages: list[Page], number: int, translated: list[str], stems: Sequence[str]) -> dict:
    page = pages[number]
    here = {beside.stem for beside in pages}  # the rest is there in English alone
    other = {"en": f"zh/{page.stem}.html", "zh": f"../{page.stem}.html"}[page.language]
    return {
        "pages": {s: f"{s}.html" if s in here else f"../{s}.html" for s in stems},
        "before": pages[number - 1] if number else None,
        "after": pages[number + 1] if number + 1 < len(pages) else None,
        "other": other if page.stem in translated else "",
    }


def _told(file: Path) -> str:
    size = file.stat().st_size
    if size > MOST:
        raise ValueError(f"{file.name}: {size} bytes; expected at most {MOST} beyond its pictures")
    return f"{file.parent.name}/{file.name}: {size // 1000} kB"


def _assets(folder: Path) -> None:
    """One style and one script for all pages; the panel's own style and inks are part of it."""
    from labkit.draw import live

    folder.mkdir(parents=True, exist_ok=True)
    panel = (ROOT / "labkit" / "panel.css").read_text(encoding="utf-8")
    own = (ASSETS / "site.css").read_text(encoding="utf-8")
    (folder / "site.css").write_text("\n".join([panel, live.css(), own]), encoding="utf-8")
    shutil.copy(ASSETS / "exhibit.js", folder)


def main(arguments: list[str] | None = None) -> int:
    """Build from the command line; 0 if all is well."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("slug", nargs="*", help="notebooks to build; all if none is named")
    options = parser.parse_args(arguments)
    try:
        stems = [text.stem for text in texts(options.slug)]
    except ValueError as error:
        parser.error(str(error))
    for line in site(stems, SITE):
        print(line, flush=True)
    print(f"open {SITE.relative_to(ROOT)}/index.html")
    return 0


if __name__ == "__main__":
    sys.exit(main())

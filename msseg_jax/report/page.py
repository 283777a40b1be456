"""Write a self-contained HTML file, which can be viewed without a network."""

from datetime import datetime
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, PackageLoader

from msseg_jax import __version__
from msseg_jax.report.grey import WINDOW
from msseg_jax.system.atomic import write_beside
from msseg_jax.volumes.axial_view import EDGES
from msseg_jax.volumes.sides import MIDLINE_MM

# How each page begins. It tells a page of this program from others.
PAGE_START = '<!DOCTYPE html>\n<html lang="en" data-made-by="msseg_jax">\n'
MOST_ROWS = 20  # rows of a lesion table that are shown; further rows are folded
TILT_DEGREES = 10.0  # if the grid is more oblique than this, the page says so


def write_page(path: Path, template: str, **content: object) -> None:
    """Render a template of this package to a file. The file appears only when it is complete."""
    environment = Environment(
        loader=PackageLoader("msseg_jax.report", "templates"),
        autoescape=True, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    folder = files("msseg_jax.report").joinpath("templates")
    texts = {
        name: folder.joinpath(file).read_text(encoding="utf-8")
        for name, file in (("style", "style.css"), ("script", "viewer.js"))
    }
    html = environment.get_template(template).render(
        **texts,
        start=PAGE_START,
        made=datetime.now().strftime("%Y-%m-%d %H:%M"),
        edges=EDGES,
        window=WINDOW,
        midline_mm=MIDLINE_MM,
        most_rows=MOST_ROWS,
        most_tilt_degrees=TILT_DEGREES,
        version=__version__,
        **content,
    )
    # On Linux, a file name may hold bytes that are no text.
    encoded = html.encode("utf-8", errors="backslashreplace")
    write_beside(path, lambda file: file.write_bytes(encoded))

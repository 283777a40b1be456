"""The settings of the documentation. `make docs` builds it into build/docs."""

from msseg_jax import __version__

project = "msseg_jax"
author = "The authors of msseg_jax"
copyright = "the authors of msseg_jax, Apache-2.0"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["requirements*.txt"]

smartquotes = False  # or else --flag becomes a dash
default_role = "code"  # `name` in docstrings
myst_heading_anchors = 3  # links to headings, as GitHub makes them
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_class_signature = "separated"  # users do not make these objects themselves
napoleon_numpy_docstring = False

html_theme = "furo"
html_title = f"msseg_jax {__version__}"
html_copy_source = False
html_static_path = ["_static"]
html_css_files = ["tables.css"]

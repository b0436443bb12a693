"""How Sphinx makes the site of these pages: `make docs`, without the internet.

Owns the theme, the extensions, and what a reference may point to. Must never hold text
of a page: pages include the README and each other's sources, or link to them.
"""

from importlib.metadata import version as version_of

project = "ratelimit"
release = version_of("ratelimit-openai")
html_title = f"ratelimit {release}"
html_show_copyright = False
html_theme = "furo"
html_theme_options = {"top_of_page_buttons": []}
"""Without links to a repository's host, which a clone does not know."""
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False

extensions = ["myst_parser", "sphinx.ext.autodoc"]
myst_heading_anchors = 3

default_role = "py:obj"
"""Docstrings name what they are about in single backticks."""
nitpicky = True
"""A name of this package that leads nowhere is a broken link."""
nitpick_ignore_regex = [("py:.*", r"(?!ratelimit\.).*|ratelimit\..*\.[A-Z]")]
"""Names of other packages are text: their documentation is not at hand when this is
built. So are type variables.
"""
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
maximum_signature_line_length = 88

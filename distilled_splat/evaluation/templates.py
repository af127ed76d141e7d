"""The templates of our HTML pages."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, Template


def template(name: str) -> Template:
    """Return a template of this folder. It escapes all texts."""
    return Environment(loader=PackageLoader("distilled_splat", "evaluation"), autoescape=True).get_template(name)

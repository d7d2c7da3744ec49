"""What pyproject.toml cannot say of a distribution: where the project lives, and a README whose links lead there.

An index shows the README without the files around it, so a link to one of them leads nowhere. With the address of the
repository in BACKPROP_ADDRESS they lead into it; without one they are words, and no address is made up.
"""

import os
import re

from setuptools import setup

LINK = re.compile(r"(!?)\[([^\]]*)\]\((?![a-z]+:|#)([^)\s]+)\)")
PAGES = {"Documentation": "docs/index.md", "Changelog": "CHANGELOG.md", "Security": "SECURITY.md"}


def for_an_index(text: str, address: str) -> str:
    """The README with links that lead into the repository at an address, or, without one, with words in their place."""

    def link(found: re.Match[str]) -> str:
        picture, words, path = found.groups()
        if not address:
            return "" if picture else words
        return f"{picture}[{words}]({address}/{'raw' if picture else 'blob'}/HEAD/{path})"

    return LINK.sub(link, text)


if __name__ == "__main__":
    address = os.environ.get("BACKPROP_ADDRESS", "").rstrip("/")
    with open("README.md", encoding="utf-8") as readme:
        text = for_an_index(readme.read(), address)
    pages = {name: f"{address}/blob/HEAD/{path}" for name, path in PAGES.items()}
    setup(
        long_description=text,
        long_description_content_type="text/markdown",
        project_urls={"Source": address, **pages} if address else {},
    )

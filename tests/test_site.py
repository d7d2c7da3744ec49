"""The site is built without a warning, asks nothing of the net, its links arrive, and every equation has its line of code."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import backprop as bp

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
sys.path.insert(0, str(DOCS))

from _site.equations import EQUATION, IMPLEMENTED, NotOnce, find, line_of  # noqa: E402
from _site.layout import contents, lay_out, links  # noqa: E402
from _site.made import emptied  # noqa: E402
from _site.moved import MOVED  # noqa: E402

NOTES = sorted((DOCS / "notes").glob("*.md"))
NEEDS = [name for name in ("sphinx", "myst_parser", "furo") if importlib.util.find_spec(name) is None]


class Page(HTMLParser):
    """What a page asks for, where it leads, and where in it one can arrive."""

    def __init__(self, path):
        super().__init__()
        self.path, self.anchors, self.links, self.asked, self.images = path, {""}, [], [], []
        self.headings, self.equations, self.implements = 0, 0, []
        self.text = path.read_text("utf-8")
        self.feed(self.text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.anchors |= {attributes.get("id") or "", attributes.get("name") or ""}
        if tag == "a" and attributes.get("href"):
            self.links.append(attributes["href"])
        if tag in ("script", "img", "iframe", "source") and attributes.get("src"):
            self.asked.append(attributes["src"])
        if tag == "link" and attributes.get("rel") not in ("canonical", "author", "copyright"):
            self.asked.append(attributes["href"])
        if tag == "img":
            self.images.append(attributes)
        self.headings += tag == "h1"


class Site:
    """The pages of a built site, by their path in it."""

    def __init__(self, folder, output):
        self.folder, self.output = folder, output
        paths = [path for path in folder.rglob("*.html") if "_static" not in path.parts]
        self.pages = {path.relative_to(folder).as_posix(): Page(path) for path in sorted(paths)}

    def lost(self, name, link):
        """Whether a link of a page leads nowhere in the site; those out of it are not followed."""
        parts = urlsplit(link)
        if parts.scheme or parts.netloc:
            return False
        path = ((self.folder / name).parent / unquote(parts.path)).resolve() if parts.path else self.folder / name
        if not path.is_relative_to(self.folder) or not path.is_file():
            return True
        page = self.pages.get(path.relative_to(self.folder).as_posix())
        return page is not None and unquote(parts.fragment) not in page.anchors


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    if NEEDS:
        pytest.skip(f"the site needs the extra backprop-mlp[docs]; not installed: {', '.join(NEEDS)}")
    folder = tmp_path_factory.mktemp("site") / "site"
    # A process of its own: Sphinx changes sys.path, locales and warnings.
    build = subprocess.run([sys.executable, DOCS / "build.py", folder], capture_output=True, text=True, check=False)
    return Site(folder, (build.returncode, build.stdout + build.stderr))


class TestSite:
    def test_is_built_without_a_warning(self, site):
        code, output = site.output
        assert code == 0, output
        assert "WARNING" not in output

    def test_has_every_page(self, site):
        pages = {path.relative_to(DOCS).with_suffix(".html").as_posix() for path in DOCS.rglob("*.md")}
        assert {*pages, "readme.html", "contributing.html", "changelog.html", "search.html"} <= set(site.pages)

    def test_an_old_address_leads_to_the_page(self, site):
        assert "api" in MOVED
        for old, new in MOVED.items():
            assert f"{new}.html" in site.pages[f"{old}.html"].links

    def test_pages_have_a_title_and_are_not_empty(self, site):
        for name, page in site.pages.items():
            if not name.startswith(("genindex", "search")) and name.removesuffix(".html") not in MOVED:
                assert page.headings == 1, name
                assert len(re.sub(r"<[^>]+>|\s+", " ", page.text.partition("<article")[2])) > 300, name

    def test_asks_nothing_of_the_net(self, site):
        for name, page in site.pages.items():
            assert [address for address in page.asked if urlsplit(address).netloc] == [], name
        for sheet in (site.folder / "_static").rglob("*.css"):
            text = re.sub(r"/\*.*?\*/", "", sheet.read_text("utf-8"), flags=re.DOTALL)
            assert not re.search(r"@import|url\(\s*[\"']?(https?:)?//", text), sheet.name

    def test_every_link_arrives(self, site):
        lost = {(name, link) for name, page in site.pages.items() for link in page.links if site.lost(name, link)}
        assert lost == set()

    def test_everything_asked_for_is_there(self, site):
        lost = {(name, link) for name, page in site.pages.items() for link in page.asked if site.lost(name, link)}
        assert lost == set()

    def test_pictures_say_what_they_show(self, site):
        for name, page in site.pages.items():
            for image in page.images:
                assert len(image.get("alt") or "") > 10, (name, image)

    def test_mathematics_comes_along(self, site):
        with_math = [page for page in site.pages.values() if 'class="math' in page.text]
        assert len(with_math) >= len(NOTES) / 2
        for page in with_math:
            assert any(address.partition("?")[0].endswith("_static/mathjax/tex-chtml.js") for address in page.asked)
        fonts = site.folder / "_static" / "mathjax" / "output" / "chtml" / "fonts" / "woff-v2"
        assert len(list(fonts.glob("*.woff"))) >= 10

    @pytest.mark.skipif(shutil.which("chromium") is None, reason="there is no Chromium to look with")
    def test_looks_right_wide_and_narrow_light_and_dark(self, site, tmp_path):
        pages = ["index.html", "notes/06_relu.html", "train/plots.html"]
        command = [sys.executable, DOCS / "look.py", site.folder, tmp_path, "--pages", *pages]
        looked = subprocess.run(command, capture_output=True, text=True, check=False)
        assert looked.returncode == 0, looked.stdout
        assert len(list(tmp_path.glob("*.png"))) == 4 * len(pages)

    @pytest.mark.parametrize("word", ["softmax", "momentum", "quantil", "checkpoint", "onnx"])
    def test_search_finds(self, site, word):
        text = (site.folder / "searchindex.js").read_text("utf-8")
        index = json.loads(text[text.index("(") + 1 : text.rindex(")")])
        assert any(term.startswith(word) for term in index["terms"])

    def test_reference_has_every_public_name(self, site):
        from sphinx.util.inventory import InventoryFile

        with (site.folder / "objects.inv").open("rb") as file:
            inventory = InventoryFile.load(file, "", lambda base, path: path)
        there = {name for kind, entries in inventory.items() if kind.startswith("py:") for name in entries}
        expected = {f"backprop.{name}" for name in bp.__all__}
        for module in ("estimators", "plots", "testing"):
            expected |= {f"backprop.{module}.{name}" for name in getattr(bp, module).__all__}
        assert expected - there == set()

    def test_reference_shows_docstrings_as_text(self, site):
        shown = re.sub(r"<[^>]+>", "", site.pages["reference/networks.html"].text)
        assert "∂L/∂Ω   = ∂L/∂f hᵀ           (D_out, D_in)" in shown
        assert "Linear(in_features, out_features, *, bias=True, initializer=None, seed=None)" in shown
        assert ":py:" not in shown
        # Printed lines that begin with spaces belong to the doctest.
        assert '<span class="go">    ∂L/∂Ω_0 = ∂L/∂f_0 xᵀ' in site.pages["reference/gradients.html"].text

    def test_an_equation_leads_to_its_line(self, site):
        for name, page in site.pages.items():
            for paragraph in re.findall(r'<p class="implements">(.*?)</p>', page.text, re.DOTALL):
                for link, code in re.findall(r'<a [^>]*href="([^"]+)"[^>]*>(.*?)</a>', paragraph, re.DOTALL):
                    assert shown_at(site, name, link, plain(code)), (name, link, code)


def plain(markup):
    """The text of some HTML, without spaces: they are told apart in code by more than one way."""
    parser = HTMLParser(convert_charrefs=True)
    pieces = []
    parser.handle_data = pieces.append
    parser.feed(markup)
    parser.close()
    return re.sub(r"\s+", "", "".join(pieces))


def shown_at(site, name, link, code):
    """Whether code stands where a link leads: in one line of a source page, or in a block of the page itself."""
    path, _, anchor = link.partition("#")
    if not path:
        block = site.pages[name].text.partition(f'id="{anchor}"')[2].partition("</pre>")[0]
        return code in plain(f"<{block}")
    text = site.pages[((site.folder / name).parent / path).resolve().relative_to(site.folder).as_posix()].text
    (line,) = re.findall(rf'^.*<span class="line" id="{anchor}">(.*)$', text, re.MULTILINE)
    return code in plain(line)


class TestEquations:
    @pytest.mark.parametrize("page", NOTES, ids=lambda page: page.name)
    def test_each_has_its_line_of_code(self, page):
        text = page.read_text("utf-8")
        for equation in EQUATION.finditer(text):
            assert find(text, equation), equation[0]
        assert text.count("$$") == 2 * len(EQUATION.findall(text)), "an equation that is not on lines of its own"

    def test_the_notes_have_many(self):
        assert sum(len(EQUATION.findall(page.read_text("utf-8"))) for page in NOTES) >= 40

    def test_a_line_is_found_once_or_refused(self):
        text = "a = 1\nb = 2\nb = 2\n"
        assert line_of(text, "a = 1") == 1
        with pytest.raises(NotOnce, match=r"part of 2 lines, not of one: \[2, 3\]"):
            line_of(text, "b = 2")
        with pytest.raises(NotOnce, match="part of 0 lines"):
            line_of(text, "a = 2")

    def test_a_line_may_be_that_of_a_function(self):
        text = "def f(h):\n    return h\n\n\nclass A:\n    def g(self, h):\n        return h\n"
        assert line_of(text, "return h", "f") == 2
        assert line_of(text, "return h", "g") == 7
        with pytest.raises(NotOnce, match="'k' is the name of 0 functions"):
            line_of(text, "return h", "k")
        with pytest.raises(NotOnce, match="part of 0 lines"):
            line_of(text, "return 2", "g")

    @pytest.mark.parametrize(
        ("below", "message"),
        [
            ("Some sentence.", "no line of code below"),
            ("`backprop/nowhere.py`: `f = 1`", "there is no file"),
            (f"`{'../'}outside.py`: `f = 1`", "there is no file"),
            ("`backprop/layers/linear.py`: `f = omega @ beta`", "part of 0 lines"),
            ("`this page`: `c = 3`", "part of 0 lines"),
        ],
    )
    def test_what_is_wrong_is_said(self, below, message):
        page = f"$$\nf = 1\n$$\n\n{below}\n\n```python\nb = 2\n```\n"
        with pytest.raises(NotOnce, match=message):
            find(page, EQUATION.search(page))

    def test_the_page_itself_counts(self):
        page = "$$\nf = 1\n$$\n\n`this page`: `b = 2`\n\n```python\na = 1\nb = 2\n```\n"
        assert find(page, EQUATION.search(page)) == [("this page", 2)]
        assert IMPLEMENTED.fullmatch("`a.py`: `b` · `c`")


class TestLayout:
    def test_a_folder_of_somebody_else_is_left_alone(self, tmp_path):
        for folder in (tmp_path / "site", tmp_path / "site.pages"):
            folder.mkdir()
            (folder / "thesis.txt").write_text("mine")
            with pytest.raises(SystemExit, match=f"{folder.name} is not a folder that was made here"):
                emptied(tmp_path / "site")
            assert (folder / "thesis.txt").read_text() == "mine"
            (folder / "thesis.txt").unlink()
        pages = emptied(tmp_path / "site")
        (pages / "old.md").write_text("gone")
        (tmp_path / "site").mkdir()
        (tmp_path / "site" / ".buildinfo").write_text("")
        assert emptied(tmp_path / "site") == pages
        assert not (pages / "old.md").exists()
        assert not (tmp_path / "site").exists()

    def test_the_words_of_a_picture_stand_on_one_line(self, tmp_path):
        page = tmp_path / "docs" / "a.md"
        assert (
            links("![two\nwords](b.gif)\ntwo\nlines\n", page, tmp_path, tmp_path) == "![two words](b.gif)\ntwo\nlines\n"
        )

    def test_an_index_is_the_order_of_reading(self):
        index = "# Title\n\n## Learn\n\n| [One](one.md) | [two](two.md) |\n\n## Look up\n\n- [Two](two.md)\n- [Out](https://x.org)\n"
        first, second = contents(index).strip().split("\n\n```{toctree}")
        assert first.endswith(":caption: Learn\n\nOne <one>\n```")
        assert second.endswith(":caption: Look up\n\nTwo <two>\n```")

    def test_links_are_those_of_the_site(self, tmp_path):
        root, target = tmp_path / "root", tmp_path / "pages"
        (root / "docs" / "notes").mkdir(parents=True)
        (root / "README.md").write_text("[here](docs/notes/a.md#b) [code](backprop/x.py) [net](https://x.org/a.md)\n")
        up = f"[up]({'../' * 2}README.md)"
        block = f"```python\nz = '{up}'\n```\n"
        (root / "docs" / "notes" / "a.md").write_text(f"{up} ![p](p.png)\n{block}")
        (root / "docs" / "notes" / "p.png").write_bytes(b"picture")
        (root / "docs" / "reference").mkdir()
        (root / "docs" / "reference" / "api.md").write_text("# Names\n")
        lay_out(root, target)
        readme = (target / "readme.md").read_text()
        assert readme == "[here](notes/a.md#b) [code](source:backprop/x.py) [net](https://x.org/a.md)\n"
        page = (target / "notes" / "a.md").read_text()
        assert page.startswith(f"[up]({'../'}readme.md) ![p](p.png)\n")
        assert page.endswith(block)
        assert (target / "notes" / "p.png").read_bytes() == b"picture"

"""Photograph the built site, wide and narrow, light and dark: `python docs/look.py [site] [folder]`. Needs Chromium.

Each page is opened in a frame of its own width on a local server, with two pixels for one, as on a dense screen. Besides the
photographs, it says which pages are wider than their frame (something overflows), which show mathematics as TeX, or cover the
lines of code below it, which pictures are missing, too small to be read, or have too few pixels for a dense screen, and whether
search finds something.
"""

from __future__ import annotations

import argparse
import functools
import html
import json
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _site.moved import MOVED

OUT = Path(__file__).resolve().parents[1] / "out"
WIDTHS, THEMES = (1300, 400), ("dark", "light")
LEAST, MOST = 900, 15_000  # heights; a picture shows the whole page, if it is no longer than that
SHARP = 1.3  # pixels of a picture for one of the page, at least
LEGIBLE = 0.5  # of the size at which a picture was drawn, at least
SEARCH = "search.html?q=softmax"
FRAME = """<!doctype html><body style="margin:0"><iframe id="f" width="{width}" height="{height}" style="border:0"
src="/{page}"></iframe><script>
localStorage.setItem("theme", "{theme}");
function look() {{
  const page = document.getElementById("f").contentDocument;
  const boxes = [page.documentElement, page.querySelector(".content")].filter(e => e && e.scrollWidth > e.clientWidth + 1);
  const wide = boxes.length ? [...page.querySelectorAll("article *")]
    .filter(e => e.getBoundingClientRect().right > {width} + 1).slice(0, 5).map(e => e.tagName + "." + e.className) : null;
  const tex = [...page.querySelectorAll(".math")].filter(e => !e.querySelector("mjx-container")).length;
  const broken = [...page.images].filter(e => e.complete && !e.naturalWidth).map(e => e.src);
  const found = page.querySelectorAll("#search-results li").length;
  const cut = [...page.querySelectorAll("div.math")].filter(e => e.scrollWidth > e.clientWidth + 1).length;
  const blurred = [...page.querySelectorAll("article img")]
    .filter(e => !e.src.endsWith(".svg") && e.naturalWidth < {sharp} * e.clientWidth).map(e => e.src.split("/").pop());
  const small = [...page.querySelectorAll("article img")].filter(e => !e.closest(".doors"))
    .filter(e => e.getBoundingClientRect().width < {legible} * (parseFloat(e.style.width) || e.naturalWidth))
    .map(e => e.src.split("/").pop());
  const error = page.querySelectorAll("mjx-merror").length;
  const covered = [...page.querySelectorAll("p.implements a")].filter(e => {{
    e.scrollIntoView({{block: "center", behavior: "instant"}});
    const box = e.getBoundingClientRect();
    return !e.contains(page.elementFromPoint(box.right - 3, box.top + 3));
  }}).map(e => e.textContent);
  page.documentElement.scrollTo({{top: 0, behavior: "instant"}});
  const height = page.documentElement.scrollHeight;
  document.body.dataset.report = JSON.stringify({{wide, tex, broken, blurred, small, found, error, cut, covered, height}});
}}
setTimeout(look, 4000);
setTimeout(look, 18000);  // where the machine is busy, formulas take longer
</script>"""


class Silent(SimpleHTTPRequestHandler):
    """Serves the site, and for /frame?width,height,theme,page a page that frames one of its pages."""

    def do_GET(self) -> None:
        """Answer with a file, or with a frame."""
        name, _, query = self.path.partition("?")
        if name != "/frame":
            super().do_GET()
            return
        width, height, theme, page = query.split(",", 3)
        size = {"width": int(width), "height": int(height)}
        body = FRAME.format(**size, theme=theme, page=html.escape(page), sharp=SHARP, legible=LEGIBLE).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Say nothing."""

    def handle(self) -> None:
        """Answer; a browser that is done before it has everything is no mistake."""
        with suppress(ConnectionError):
            super().handle()


@contextmanager
def served(site: Path) -> Iterator[str]:
    """The address of a local server of the site."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Silent, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()


def browse(browser: str, address: str, width: int, height: int, *options: str) -> str:
    """Open an address without a display, let its scripts run, and return what the browser prints."""
    common = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=20000"]
    window = f"--window-size={max(width, 500)},{height}"
    command = [browser, *common, window, *options, address]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def look(browser: str, address: str, page: str, width: int, theme: str, picture: Path) -> list[str]:
    """Photograph a page, and list what is wrong with it."""

    def frame(height: int) -> str:
        return f"{address}/frame?{width},{height},{theme},{page}"

    found = re.search(r'data-report="([^"]*)"', browse(browser, frame(LEAST), width, LEAST, "--dump-dom"))
    if not found:
        return ["could not be opened"]
    report = json.loads(html.unescape(found[1]))
    height = min(max(report["height"], LEAST), MOST)
    dense = "--force-device-scale-factor=2" if height <= MOST / 2 else "--force-device-scale-factor=1"
    browse(browser, frame(height), width, height, dense, f"--screenshot={picture}")
    wrong = [f"is wider than {width}: {report['wide']}"] if report["wide"] is not None else []
    wrong += [f"shows {report['tex']} formulas as TeX"] if report["tex"] else []
    wrong += [f"has {report['error']} formulas with errors"] if report["error"] else []
    wrong += [f"has {report['cut']} formulas wider than {width}"] if report["cut"] else []
    wrong += [f"covers lines of code: {report['covered']}"] if report["covered"] else []
    wrong += [f"lacks pictures {report['broken']}"] if report["broken"] else []
    wrong += [f"has pictures that dense screens blur: {report['blurred']}"] if report["blurred"] else []
    wrong += [f"has pictures too small to be read: {report['small']}"] if report["small"] else []
    wrong += ["finds nothing"] if page.startswith("search") and not report["found"] else []
    return wrong


def main() -> int:
    """Visit the pages, and say what is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("site", nargs="?", type=Path, default=OUT / "site")
    parser.add_argument("out", nargs="?", type=Path, default=OUT / "look")
    parser.add_argument("--pages", nargs="*", help="only these, such as index.html")
    arguments = parser.parse_args()
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        print("There is no Chromium to look with.")  # where there is one, this is a check
        return 0
    arguments.out.mkdir(parents=True, exist_ok=True)
    every = sorted(page.relative_to(arguments.site).as_posix() for page in arguments.site.rglob("*.html"))
    pages = arguments.pages or [
        page
        for page in every
        if not page.startswith(("source/", "_", "genindex", "search")) and page.removesuffix(".html") not in MOVED
    ] + [SEARCH]
    # Every page in the two ways in which most goes wrong; those asked for in all four.
    ways = (
        [(width, theme) for width in WIDTHS for theme in THEMES]
        if arguments.pages
        else list(zip(WIDTHS, THEMES, strict=True))
    )
    views = [(page, width, theme) for page in pages for width, theme in ways]

    def visit(view: tuple[str, int, str]) -> list[str]:
        page, width, theme = view
        name = re.sub(r"\W+", "-", page.partition(".html")[0])
        picture = arguments.out / f"{name}-{width}-{theme}.png"
        return [f"{page} ({width}, {theme}) {fault}" for fault in look(browser, address, page, width, theme, picture)]

    faults = 0
    with served(arguments.site) as address, ThreadPoolExecutor(3) as pool:
        for found in pool.map(visit, views):
            faults += len(found)
            for fault in found:
                print(fault, flush=True)
    print(f"{len(pages)} pages, {faults} faults; the pictures are in {arguments.out}")
    return min(faults, 1)


if __name__ == "__main__":
    sys.exit(main())

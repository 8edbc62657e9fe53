"""MkDocs hook: pages and pictures outside docs/ are part of the site, and links lead to them or become plain text.

In the repository a page of docs/ links to `../projects/towers/README.md`, which works on the git host. The site holds
the projects' READMEs and all pictures that pages show, under their paths in the repository; any other file outside
docs/ has no page there, so a link to it becomes the link's text and the file's path.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
DOCS = "docs/"
PICTURES = (".png", ".svg", ".jpg")
_LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^()\s#]+)(?P<anchor>#[^()\s]*)?\)")
# Whichever begins first: in a block or a span of code nothing is a link, but a link's text may hold a span.
_PIECE = re.compile(rf"^ *```.*?^ *```$|{_LINK.pattern}|`[^`\n]+`", re.M | re.S)


def included() -> list[str]:
    """Files outside docs/ that the site holds, by their path in the repository."""
    pages = [path.relative_to(ROOT).as_posix() for path in sorted(ROOT.glob("projects/*/README.md"))]
    sources = [*(ROOT / page for page in pages), *ROOT.glob("docs/**/*.md")]
    pictures = set()
    for source in sources:
        base = source.parent.relative_to(ROOT).as_posix()
        for match in _LINK.finditer(source.read_text(encoding="utf-8")):
            path = posixpath.normpath(posixpath.join(base, match["target"]))
            if path.endswith(PICTURES) and not path.startswith(DOCS) and (ROOT / path).is_file():
                pictures.add(path)
    return [*pages, *sorted(pictures)]


def on_files(files: Files, config, **kwargs) -> Files:
    """Add the files outside docs/."""
    for path in included():
        files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page, files: Files, **kwargs) -> str:
    """Turn links between places in the repository into links between places on the site."""
    here = page.file.src_uri  # of the site: docs/ is its root
    in_repository = DOCS + here if (ROOT / DOCS / here).is_file() else here

    def on_site(match: re.Match) -> str:
        target = match["target"]
        if target is None or re.match(r"[a-z]+:", target):
            return match[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(in_repository), target))
        page_of_folder = f"{path}/README.md" if (ROOT / path).is_dir() else path
        place = page_of_folder.removeprefix(DOCS)
        if files.get_file_from_path(place) is not None:
            relative = posixpath.relpath(place, posixpath.dirname(here) or ".")
            return f"{match['image']}[{match['text']}]({relative}{match['anchor'] or ''})"
        text = match["text"].strip("`")
        return f"`{path}`" if text in (path, posixpath.basename(path)) else f"{text} (`{path}`)"

    return _PIECE.sub(on_site, markdown)

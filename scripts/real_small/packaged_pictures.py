"""The pictures of the fetched packages with what people wrote about them."""

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MAX_PIXELS = 4_000_000
"""Larger files are left out: a few of openclipart have hundreds of millions of pixels."""
STAMPS = Path("tuxpaint-stamps-default") / "usr" / "share" / "tuxpaint" / "stamps"
CLIPART = {kind: Path(f"openclipart-{kind}") / "usr" / "share" / "openclipart" / kind for kind in ("png", "svg")}
_CONCRETE = {
    "animals",
    "buildings",
    "containers",
    "decorations",
    "education",
    "electronics",
    "food",
    "office",
    "people",
    "plants",
    "recreation",
    "science",
    "tools",
    "transportation",
}
"""Folders of openclipart with pictures of things."""
_SIGNS = ("aiga", "cards", "flag", "icons", "mapsym", "roadsign", "semaphore", "smilies", "stickmen")
_NOT_SHOWN = ("nude", "pantyhose", "stripper")
"""In a file's path or title: left out."""
_READ = 1 << 16
"""Bytes of an SVG in which its metadata are looked for."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One file and the words about it."""

    source: str
    """`stamps` or `clipart`."""
    file: Path
    title: str
    """One line, by whoever made the picture: a caption of a stamp, a title of a clipart."""
    words: tuple[str, ...]
    """Further: keywords, and the folders that it was sorted into."""

    @property
    def name(self) -> str:
        """Of the file among all."""
        return f"{self.source}-{self.file.stem}"


def stamps(root: Path) -> Iterator[Picture]:
    """Tux Paint's stamps: photographs and drawings, a caption beside each. Letters, signs and faces are left out.

    Args:
        root: Folder of the packages.
    """
    for file in sorted((root / STAMPS).rglob("*.png")):
        folders = file.relative_to(root / STAMPS).parts[:-1]
        caption = file.with_suffix(".txt")
        if file.stem.endswith("_mirror") or {"symbols", "roadsigns"} & set(folders) or not caption.is_file():
            continue
        title = caption.read_text(encoding="utf-8").partition("\n")[0].strip()
        yield Picture(source="stamps", file=file, title=title, words=folders)


def clipart(root: Path) -> Iterator[Picture]:
    """Openclipart's drawings of things, with the title and the keywords of their SVG files.

    Args:
        root: Folder of the packages.
    """
    for svg in sorted((root / CLIPART["svg"]).rglob("*.svg")):
        relative = svg.relative_to(root / CLIPART["svg"])
        file = root / CLIPART["png"] / relative.with_suffix(".png")
        if relative.parts[0] not in _CONCRETE or any(sign in relative.as_posix() for sign in _SIGNS):
            continue
        if not file.is_file():
            continue
        with open(svg, "rb") as stream:
            text = stream.read(_READ).decode("utf-8", "replace")
        title = re.search(r"<dc:title>(.*?)</dc:title>", text, re.S)
        keywords = [html.unescape(word).strip() for word in re.findall(r"<rdf:li>(.*?)</rdf:li>", text, re.S)]
        words = (*(word for word in keywords if word and not word.lower().startswith("hash")), *relative.parts[:-1])
        picture = Picture(source="clipart", file=file, title=_clean(title[1]) if title else "", words=words)
        if not any(word in f"{relative} {picture.title}".lower() for word in _NOT_SHOWN):
            yield picture


def _clean(title: str) -> str:
    """A title without its artist, format and colour remarks."""
    title = re.sub(r"\s+", " ", html.unescape(title)).strip()
    title = re.sub(r"^Clipart by [A-Z]\w+ [A-Z]\w+ - ", "", title)
    return re.sub(r"\s*\((B and W|Black and White)\)$", "", title, flags=re.I)

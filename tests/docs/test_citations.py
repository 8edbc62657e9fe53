"""What the code and the pages refer to is there: documents, their sections, files, anchors."""

import re
import subprocess
from pathlib import Path

import pytest

from helpers.paths import ROOT

CITING = {".py", ".yaml", ".yml", ".toml", ".md"}
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("projects/*/README.md")])
# Working papers of the developers that are no part of the repository.
PRIVATE = ("DESIGN", "HOSTS", "EVAL", "PAPER", "STYLE", "PEERS", "TRIALS", "MINIATURE")

# A page and, in quotes after a comma, one of its sections or several, joined by a comma or "and"; lines may break.
_BREAK = r"[\s#]*"
_SECTION = rf'{_BREAK}"(?:[^"]+)"'
CITATION = re.compile(rf"(?<![\w/.-])docs/(?P<page>[\w/-]+\.md)`?(?P<sections>(?:(?:,|{_BREAK}and){_SECTION})*)")
LINK = re.compile(r"!?\[[^\]]*\]\((?P<target>[^()\s]+)\)")
HEADING = re.compile(r"^(#{1,6})\s+(.+?)\s*#*$", re.M)


def tracked() -> list[Path]:
    found = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, text=True)
    if found.returncode:
        pytest.skip("no git checkout")
    return [path for name in found.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def read(path: Path) -> str | None:
    """The text; None for a file that is none."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return None


def without_code(text: str) -> str:
    """A page without its fenced blocks, in which `#` and brackets mean something else."""
    return re.sub(r"^( *)```.*?^ *```$", "", text, flags=re.M | re.S)


def headings(path: Path) -> list[str]:
    return [title for _, title in HEADING.findall(without_code(path.read_text(encoding="utf-8")))]


def anchor(title: str) -> str:
    """As the git hosts make it of a heading."""
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).replace("`", "")
    return re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")


def where(path: Path) -> str:
    return str(path.relative_to(ROOT))


def citations() -> list[tuple[str, str, str | None]]:
    """(citing file, page, section or None)."""
    found = []
    for path in tracked():
        if path.suffix not in CITING and path.name != "Makefile":
            continue
        for match in CITATION.finditer(read(path) or ""):
            sections = re.findall(r'"([^"]+)"', match["sections"])
            names = [" ".join(re.sub(r"\n\s*#?", " ", name).split()) for name in sections]
            found += [(where(path), match["page"], name) for name in names or [None]]
    return found


def test_cited_pages_and_sections_exist():
    wrong = []
    for citing, page, section in citations():
        path = ROOT / "docs" / page
        if not path.is_file():
            wrong.append(f"{citing}: there is no docs/{page}")
        elif section is not None and section not in headings(path):
            wrong.append(f'{citing}: docs/{page} has no section "{section}"')
    assert not wrong, "\n".join(wrong)


def test_nothing_cites_a_document_that_is_not_here():
    pattern = re.compile(rf"\b(?:{'|'.join(PRIVATE)})\.md\b")
    wrong = []
    for path in tracked():
        for number, line in enumerate((read(path) or "").splitlines(), start=1):
            wrong += [f"{where(path)}:{number}: {name}" for name in pattern.findall(line)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("page", PAGES, ids=where)
def test_relative_links_lead_somewhere(page):
    wrong = []
    for match in LINK.finditer(without_code(page.read_text(encoding="utf-8"))):
        target, _, fragment = match["target"].partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        path = (page.parent / target).resolve() if target else page
        if not path.is_relative_to(ROOT) or not path.exists():
            wrong.append(f"{match['target']}: no such file")
        elif fragment and path.suffix == ".md" and fragment not in {anchor(title) for title in headings(path)}:
            wrong.append(f"{match['target']}: no such heading")
    assert not wrong, "\n".join(wrong)


def test_the_readme_stays_short():
    assert len((ROOT / "README.md").read_bytes()) <= 10_500


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('see docs/design.md, "Gate".', [("design.md", ["Gate"])]),
        ('docs/design.md,\n"Gate" and\n    "Input pixels"', [("design.md", ["Gate", "Input pixels"])]),
        ("`docs/hosts.md` says", [("hosts.md", [])]),
        ("else/docs/hosts.md", []),
    ],
)
def test_citations_are_recognised(text, expected):
    found = [(m["page"], re.findall(r'"([^"]+)"', m["sections"])) for m in CITATION.finditer(text)]
    assert found == expected

"""The pages of the project, and what can be asked of them: code, commands, links, anchors."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
CONTRIB = ROOT / "contrib"
FOR_GITHUB = sorted((ROOT / ".github").glob("*.md"))
PAGES = [README, *sorted(CONTRIB.rglob("*.md")), *FOR_GITHUB]


def name_of(page: Path) -> str:
    """Return the path of a page from the top, as tests are named by it."""
    return str(page.relative_to(ROOT))


def python_blocks(text: str) -> list[str]:
    """Return the Python in a page."""
    return re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def code_blocks(text: str) -> list[str]:
    """Return the blocks of a page that are indented by four, without the indent.

    A continued line of a list is none, so what is indented by more is left out.
    """
    bare = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    found = re.findall(r"(?:^    .*\n)+", bare, re.MULTILINE)
    return [re.sub("^    ", "", block, flags=re.MULTILINE) for block in found]


def shell_lines(text: str) -> list[str]:
    """Return the lines of all code that is not Python or JSON, continued lines joined."""
    fenced = re.findall(r"^```(?:sh|console|bash)?\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    joined = "\n".join([*code_blocks(text), *fenced]).replace("\\\n", " ")
    return [line.removeprefix("$ ") for line in joined.splitlines()]


def commands(text: str) -> list[str]:
    """Return every `bundlefs` command line of a page, in its code and in its text."""
    in_code = [part.strip() for line in shell_lines(text) for part in re.split(r"&&|\|", line)]
    in_text = [" ".join(found.split()) for found in re.findall(r"`(bundlefs [^`]*)`", text)]
    return [line for line in (*in_code, *in_text) if re.match(r"bundlefs [a-z]", line)]


def links(text: str) -> list[tuple[str, str]]:
    """Return the links to other pages and places of the project: target and anchor."""
    return re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", text)


def anchors(text: str) -> set[str]:
    """Return the anchors of the headings, as GitHub makes them."""
    bare = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", bare, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}

"""The listing in the README is a picture of the code: complete, and read from top to bottom."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def listed():
    """The line of the README's listing that each file or folder of the package stands on."""
    (listing,) = re.findall(r"^lenet/\n(.*?)^tests/", (ROOT / "README.md").read_text(), re.M | re.S)
    return {
        name: number
        for number, line in enumerate(listing.splitlines())
        for name in re.findall(r"[\w/]+\.py|\w+/(?=[ ])|\w+/$", line)
    }


def name_of(path):
    """A file as the listing has it: by itself, or as the folder that is listed for its files."""
    name = path.relative_to(ROOT / "lenet").as_posix()
    folder = name.split("/")[0] + "/"
    return name if name in listed() else folder


def modules():
    return [path for path in (ROOT / "lenet").rglob("*.py") if path.name != "__init__.py"]


def imported(path):
    """The files of the package that one imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lenet"):
            whole = ROOT / node.module.replace(".", "/")
            parts = [whole / f"{alias.name}.py" for alias in node.names]
            yield from (part for part in parts if part.is_file())
            if whole.with_suffix(".py").is_file():
                yield whole.with_suffix(".py")


def test_every_module_is_in_the_listing():
    names = {name_of(path) for path in modules()}
    assert len(names) > 30
    assert names == set(listed()) - {"rules.py"}  # It says more of claims/.


def test_imports_run_downwards():
    lines, pairs = listed(), 0
    for path in modules():
        for other in imported(path):
            above, below = name_of(path), name_of(other)
            assert lines[above] <= lines[below], f"{above} imports {below}, which stands above it"
            pairs += above != below
    assert pairs > 100

"""The tree in the README is the tree, and a word names one thing."""

import ast
import re
from collections import defaultdict
from pathlib import Path

import ost

ROOT = Path(__file__).parents[1]
SOURCE = Path(ost.__file__).parent
# Names that two modules define with reason: a command and what it calls, and type variables.
TWICE = {
    "commands": {"blend", "describe", "explain", "show"},
    "type variables": {"T"},
}


def defined():
    """Public top-level name -> the modules that define it."""
    homes = defaultdict(set)
    for file in SOURCE.rglob("*.py"):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            targets = getattr(node, "targets", [getattr(node, "target", node)])
            for target in targets:
                name = getattr(target, "name", getattr(target, "id", "_"))
                if not name.startswith("_"):
                    homes[name].add(file.relative_to(SOURCE).as_posix())
    return homes


def test_no_other_name_is_defined_twice():
    twice = {name for name, files in defined().items() if len(files) > 1}
    justified = set().union(*TWICE.values())
    assert twice == justified, "rename what is new, and take from the list what is gone"


def test_the_tree_in_the_readme_is_the_tree():
    tree = re.search(
        r"## The tree\n\n```\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL
    )[1]
    listed = {name for line in tree.splitlines() for name in re.findall(r"^  ((?:\w+(?:\.py|/) ?)+)", line)}
    listed = {name for names in listed for name in names.split()}
    here = {f"{p.name}/" for p in SOURCE.iterdir() if p.is_dir() and (p / "__init__.py").exists()}
    here |= {p.name for p in SOURCE.glob("*.py") if not p.name.startswith("__")}
    assert listed == here

"""A program whose package changes under it: python changing.py HOW PACKAGE. It loads the model, changes the package as
HOW says, and prints whether the model still gives its tokens."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import edgellm
from edgellm.loading import load_as

WEIGHTS = "model.onnx.data"


def removed(package: Path) -> None:
    shutil.rmtree(package)


def replaced(package: Path) -> None:
    """As an export with --force does it: another directory takes the name."""
    other = package.with_name("other")
    shutil.copytree(package, other)
    (other / WEIGHTS).write_bytes(bytes((other / WEIGHTS).stat().st_size))
    package.rename(package.with_name("old"))
    other.rename(package)


def files_replaced(package: Path) -> None:
    """As rsync and most editors do it: each file by another one of its name."""
    for file in list(package.iterdir()):
        new = package / "new"
        new.write_bytes(b"nothing")
        new.rename(file)


def others_changed(package: Path) -> None:
    """In place: everything but the weights is read when the model is loaded."""
    for file in package.iterdir():
        if file.name != WEIGHTS:
            file.write_bytes(b"nothing")


def weights_overwritten(package: Path) -> None:
    """In place: they are mapped."""
    with (package / WEIGHTS).open("r+b") as file:
        file.write(os.urandom((package / WEIGHTS).stat().st_size))


def weights_cut(package: Path) -> None:
    """In place: what is mapped is no longer there."""
    os.truncate(package / WEIGHTS, 0)


HOW: dict[str, Callable[[Path], None]] = {
    function.__name__: function
    for function in (removed, replaced, files_replaced, others_changed, weights_overwritten, weights_cut)
}


def main() -> None:
    package = Path(sys.argv[2])
    model = load_as(edgellm.Model, package, threads=1)

    def tokens() -> object:
        model.reset()
        try:
            return model.generate("hello", max_new_tokens=20, eos_token_id=[]).tokens
        except edgellm.ProviderError as error:
            return str(error)

    expected = tokens()
    HOW[sys.argv[1]](package)
    print("the same" if tokens() == expected else "others", flush=True)


if __name__ == "__main__":
    main()
